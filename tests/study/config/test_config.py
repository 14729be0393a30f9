from pathlib import Path
from typing import Any

import pytest
from tiny import TinyStudy

from voxplain.attribution.methods import methods
from voxplain.errors import ConfigError
from voxplain.study import Study


def sentence(tiny: TinyStudy, **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        Study.load(tiny.write(**changes))
    return str(caught.value)


@pytest.mark.parametrize("written", [float("inf"), None])
def test_no_limit_can_be_said(tiny: TinyStudy, written: float | None) -> None:
    assert Study.load(tiny.write(run={"timeout": written})).execution.timeout is None


@pytest.mark.parametrize("written", [float("nan"), 0, -1.0, 1e30, "999999999h"])
def test_limits_that_are_none(tiny: TinyStudy, written: object) -> None:
    with pytest.raises(ConfigError, match=r"run\.timeout"):
        Study.load(tiny.write(run={"timeout": written}))


def test_a_study_reads_its_defaults(tiny: TinyStudy) -> None:
    study = Study.load(tiny.file)
    assert [case.id for case in study.expanded_cases()] == ["a", "b"]
    assert [method.key for method in study.methods] == ["saliency", "integrated_gradients"]
    assert study.methods[1].steps == 4  # type: ignore[attr-defined]
    assert study.folder == tiny.run
    assert study.execution.seed == 0
    assert study.expanded_cases()[0].image == (tiny.folder / "first.nii.gz",)


def test_json_and_yaml_give_equal_studies(tiny: TinyStudy) -> None:
    import json

    as_json = tiny.folder / "study.json"
    as_json.write_text(json.dumps(tiny.config))
    assert Study.load(as_json) == Study.load(tiny.file)


def _windowed(**window: Any) -> dict[str, Any]:
    return {"name": "net", "factory": "tiny_net:build", "window": {"size": 8, **window}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"methods": ["saliency", {"name": "integrated_gradients", "stpes": 3}]},
            "study.yaml: methods[1].integrated_gradients.stpes: unknown parameter; "
            "did you mean steps?",
        ),
        ({"methods": ["salience"]}, "study.yaml: methods[0]: unknown method 'salience'; did you"),
        (
            {"target": {"kind": "pixelwise", "labl": 1}},
            "study.yaml: target.pixelwise.labl: unknown parameter; did you mean label",
        ),
        ({"target": {"kind": "pixlwise"}}, "study.yaml: target: unknown kind 'pixlwise'; did you"),
        ({"target": None}, "study.yaml: give either target (one) or targets"),
        ({"run": {"timeout": "soon"}}, "study.yaml: run.timeout: 'soon' is not a duration"),
        ({"run": {"sed": 1}}, "study.yaml: run.sed: unknown parameter; did you mean seed?"),
        ({"run": {"workers": -1}}, "study.yaml: run.workers"),
        (
            {"methods": ["saliency", "saliency"]},
            "study.yaml: methods: two of them are called 'saliency'",
        ),
        ({"methods": []}, "study.yaml: methods: "),
        ({"metrics": ["infidelty"]}, "study.yaml: metrics[0]: unknown metric 'infidelty'"),
        ({"models": [{"name": "net"}]}, "study.yaml: models[0]: give exactly one of factory"),
        ({"cases": [{"id": "a"}]}, "study.yaml: cases[0].image: this is required"),
        (
            {"cases": [{"id": "a", "image": "x.nii", "imge": 1}]},
            "study.yaml: cases[0].imge: unknown parameter; did you mean image?",
        ),
        (
            {
                "models": [
                    {
                        "name": "net",
                        "factory": "tiny_net:build",
                        "preprocess": [{"kind": "spacing", "siz": 1}],
                    }
                ]
            },
            "study.yaml: models[0].preprocess[0].spacing.siz: unknown parameter; did you mean si",
        ),
        (
            {
                "models": [
                    {"name": "net", "factory": "tiny_net:build", "window": {"size": 8, "ovrlap": 1}}
                ]
            },
            "study.yaml: models[0].window.ovrlap: unknown parameter; did you mean overlap?",
        ),
        (
            {"models": [_windowed(overlap=[0.5, 1.2])]},
            "study.yaml: models[0].window.overlap: an overlap is at least 0 and less than 1",
        ),
        (
            {"models": [_windowed(size=[8, 8], overlap=[0.5, 0.5, 0.5])]},
            "study.yaml: models[0].window: overlap has 3 values, and the size has 2 axes",
        ),
        (
            {"models": [_windowed(padding="reflect", padding_value=1)]},
            "study.yaml: models[0].window: padding_value is for padding: constant",
        ),
    ],
)
def test_a_typo_names_its_exact_path(tiny: TinyStudy, changes: dict[str, Any], words: str) -> None:
    message = sentence(tiny, **changes)
    assert message.startswith(words), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("written", "seconds"), [("90s", 90), ("10min", 600), ("1.5 h", 5400), (30, 30), (None, None)]
)
def test_durations_are_read(tiny: TinyStudy, written: object, seconds: float | None) -> None:
    assert Study.load(tiny.write(run={"timeout": written})).execution.timeout == seconds


def test_short_and_long_forms_of_target_and_method_are_one(tiny: TinyStudy) -> None:
    short = Study.load(tiny.write(target="pixelwise:1", methods=["integrated_gradients"]))
    long = Study.load(
        tiny.write(
            target={"kind": "pixelwise", "label": 1}, methods=[{"name": "integrated_gradients"}]
        )
    )
    assert short == long


def test_a_study_made_in_python_starts_at_the_working_folder(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.folder)
    study = Study.parse(tiny.config)
    assert study.expanded_cases()[0].image == (Path.cwd() / "first.nii.gz",)


def test_the_schema_knows_every_method_and_every_target() -> None:
    text = str(Study.model_json_schema(by_alias=True))
    for name in methods:
        assert f"'{name}'" in text
    for kind in ("pixelwise", "region", "contrast", "volume", "hu_window", "crop_foreground"):
        assert f"'{kind}'" in text
