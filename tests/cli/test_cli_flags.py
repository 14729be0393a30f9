"""How flags become entries of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from voxplain.cli.flag_values import parsed_declaration, parsed_parameters, parsed_target
from voxplain.cli.flags import SharedFlags
from voxplain.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("saliency", "saliency"),
        (
            "integrated_gradients:steps=16,baseline=minimum",
            {"name": "integrated_gradients", "steps": 16, "baseline": "minimum"},
        ),
        (
            "layer_conductance:layers=[enc1, enc2],steps=8",
            {"name": "layer_conductance", "layers": ["enc1", "enc2"], "steps": 8},
        ),
        (
            "saliency:baseline={kind: constant, value: 0},abs=true",
            {"name": "saliency", "baseline": {"kind": "constant", "value": 0}, "abs": True},
        ),
        ('{"name": "saliency", "abs": true}', {"name": "saliency", "abs": True}),
    ],
)
def test_methods(text: str, meaning: Any) -> None:
    assert parsed_declaration(text, "--method") == meaning


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("1", 1),
        ("pixelwise:1", "pixelwise:1"),
        ("region:label=1,component=2", {"kind": "region", "label": 1, "component": 2}),
        ('{"kind": "volume", "label": 2}', {"kind": "volume", "label": 2}),
    ],
)
def test_targets(text: str, meaning: Any) -> None:
    assert parsed_target(text) == meaning


def test_a_parameter_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="'steps' is not name=value"):
        parsed_parameters("steps")


def test_preprocessing_runs_in_the_order_of_a_pipeline() -> None:
    request = SharedFlags(
        [Path("a.nii")],
        factory="a:b",
        pad_to_multiple="16",
        normalize="zscore:foreground=true",
        spacing="1,1,2.5",
        reorient="RAS",
        crop_foreground=True,
    )
    assert request.model()["preprocess"] == [
        {"kind": "reorient", "axes": "RAS"},
        {"kind": "spacing", "size": [1, 1, 2.5]},
        {"kind": "crop_foreground"},
        {"kind": "normalize", "mode": "zscore", "foreground": True},
        {"kind": "pad_to_multiple", "multiple": 16},
    ]


def test_stated_steps_replace_the_flags() -> None:
    request = SharedFlags([Path("a.nii")], factory="a:b", preprocess='[{"kind": "reorient"}]')
    assert request.model()["preprocess"] == [{"kind": "reorient"}]


@pytest.mark.parametrize(
    "flag", [{"spacing": "3"}, {"normalize": "zscore"}, {"crop_foreground": True}]
)
def test_single_steps_beside_a_list_of_all_steps_are_refused(flag: dict[str, Any]) -> None:
    request = SharedFlags([Path("a.nii")], factory="a:b", preprocess="[]", **flag)
    name = next(iter(flag)).replace("_", "-")
    with pytest.raises(ConfigError, match=f"--preprocess states all steps, so --{name} beside"):
        request.model()


def test_the_number_of_a_series_is_part_of_the_case() -> None:
    assert SharedFlags([Path("scans")], factory="a:b", series=4).case()["series"] == 4


def test_window_and_head_are_read_as_values() -> None:
    model = SharedFlags([Path("a.nii")], factory="a:b", window="64,64,32", head="0").model()
    assert model["window"] == {"size": [64, 64, 32], "overlap": 0.5}
    each = SharedFlags([Path("a.nii")], factory="a:b", window="64", overlap="0.5,0.25,0").model()
    assert each["window"] == {"size": 64, "overlap": [0.5, 0.25, 0]}
    assert model["head"] == 0
    assert (
        SharedFlags([Path("a.nii")], factory="a:b", window="80mm").model()["window"]["size"]
        == "80mm"
    )


def test_the_id_of_a_case_says_nothing_of_its_file() -> None:
    case = SharedFlags([Path("SMITH.nii")]).case()
    assert case["id"] == "scan"
    assert Path(case["image"][0]).is_absolute()


def test_an_image_and_a_network_make_a_study() -> None:
    request = SharedFlags([Path("a.nii")], factory="a:b", weights=Path("w.pt"), device="cpu")
    study = request.study("pixelwise:1", ["saliency"], seed=3)
    assert study["cases"] == [request.case()]
    assert study["models"] == [request.model()]
    assert study["target"] == "pixelwise:1"
    assert study["methods"] == ["saliency"]
    assert study["run"] == {"seed": 3, "device": "cpu"}
    assert request.network() == {"factory": "a:b", "weights": str(Path("w.pt").absolute())}


@pytest.mark.parametrize(("flag", "overlap"), [("0", 0), ("0.25", 0.25), ("0.5,0", [0.5, 0])])
def test_the_overlap_of_windows_is_that_of_the_flag(flag: str, overlap: object) -> None:
    request = SharedFlags([Path("a.nii")], factory="a:b", window="16", overlap=flag)
    assert request.model()["window"] == {"size": 16, "overlap": overlap}
    assert "window" not in SharedFlags([Path("a.nii")], factory="a:b", overlap=flag).model()


def test_files_of_a_network_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {name: Path(f"{name}.x") for name in ("bundle", "file", "weights")}
    network = SharedFlags([Path("a.nii"), Path("b.nii")], **files).network()
    assert network == {name: str(tmp_path / path) for name, path in files.items()}
    case = SharedFlags([Path("a.nii"), Path("b.nii")]).case()
    assert case["image"] == [str(tmp_path / "a.nii"), str(tmp_path / "b.nii")]


@pytest.mark.parametrize(
    ("images", "study"),
    [(["a.yaml"], True), (["a.YML"], True), (["a.json"], True), (["a.nii"], False),
     (["a.yaml", "b.yaml"], False)],
)  # fmt: skip
def test_one_file_of_text_is_a_study(images: list[str], study: bool) -> None:
    assert SharedFlags([Path(name) for name in images]).is_study is study
