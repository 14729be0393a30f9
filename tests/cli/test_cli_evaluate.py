"""``voxplain evaluate`` and ``voxplain metrics`` as their users see them."""

from __future__ import annotations

import csv
import math
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from tiny import AFFINE, TinyStudy, blob, save, save_weights, write_tiny
from typer.testing import CliRunner

from voxplain.cli import app
from voxplain.cli.evaluate import _external_map
from voxplain.cli.metrics import show_scores
from voxplain.errors import InputError
from voxplain.io import read_image
from voxplain.metrics import metrics
from voxplain.records.scores import Score, Scores
from voxplain.study import Study, run_study

FLAGS = ("--factory", "tiny_net:build", "--weights", "net.safetensors")
SHORT = ("-m", "sparseness", "-m", "deletion:levels=4")


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyStudy:
    study = write_tiny(tmp_path / "work", monkeypatch)
    monkeypatch.chdir(study.folder)
    return study


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that is made once; a run can be copied, as it holds no absolute paths."""
    return tmp_path_factory.mktemp("kept") / "run"


@pytest.fixture
def finished(tiny: TinyStudy, kept: Path) -> TinyStudy:
    """With its run."""
    if not kept.exists():
        run_study(Study.load(tiny.file), output=kept)
    shutil.copytree(kept, tiny.run)
    return tiny


def voxplain(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def flat(text: str) -> str:
    return " ".join(text.split())


def mask(folder: Path, name: str = "mask.nii.gz") -> Path:
    bright = (blob((6, 6, 5)) > 1).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(bright, AFFINE), folder / name)
    return folder / name


def test_a_finished_run_is_evaluated(finished: TinyStudy) -> None:
    result = voxplain("evaluate", "run", "--study", finished.file, *SHORT)
    assert result.exit_code == 0, result.output
    assert "deletion ↓" in result.output
    table = Scores.read(finished.run / "metrics.parquet")
    assert {row.case for row in table} == {"a", "b"}
    assert {row.metric for row in table} == {"sparseness", "deletion"}
    finished.write(metrics=["sparseness", {"name": "deletion", "levels": 4}])
    assert voxplain("run", finished.file).exit_code == 0
    by_run = Scores.read(finished.run / "metrics.parquet")
    for row in by_run:
        same = table.of(case=row.case, metric=row.metric, method=row.method)
        assert same.values() == [row.value]
    assert len(by_run) == len(table)


def test_the_network_is_found_again_by_its_flags(finished: TinyStudy) -> None:
    result = voxplain("evaluate", "run", "--weights", "net.safetensors", *SHORT)
    assert result.exit_code == 0, result.output
    assert "copies in the run directory" in flat(result.output)
    near = Scores.read(finished.run / "metrics.parquet")
    assert voxplain("evaluate", "run", "--study", "study.yaml", *SHORT).exit_code == 0
    exact = Scores.read(finished.run / "metrics.parquet")
    assert len(near) == len(exact)
    for row in exact.of(metric="deletion", control=False):
        (other,) = near.of(case=row.case, metric=row.metric, method=row.method).values()
        assert other == pytest.approx(row.value, abs=0.01)


def test_scores_of_another_metric_are_added(finished: TinyStudy) -> None:
    for name in ("sparseness", "entropy", "sparseness"):
        assert voxplain("evaluate", "run", "--study", "study.yaml", "-m", name).exit_code == 0
    table = Scores.read(finished.run / "metrics.parquet")
    assert sorted({row.metric for row in table}) == ["entropy", "sparseness"]
    assert len(table.of(metric="sparseness")) == len(table.of(metric="entropy")) == 2 * 6


def test_a_reference_may_be_given_as_a_flag(finished: TinyStudy) -> None:
    for case in ("a", "b"):
        mask(finished.folder, f"{case}_mask.nii.gz")
    flags = ("--study", "study.yaml", "--reference", "*_mask.nii.gz", "-m", "roc_auc")
    result = voxplain("evaluate", "run", *flags)
    assert result.exit_code == 0, result.output
    table = Scores.read(finished.run / "metrics.parquet")
    assert table.of(metric="roc_auc", method="reference").values() == [1.0, 1.0]
    assert table.of(metric="roc_auc", method="saliency", case="a").values()[0] > 0.5


def test_scores_of_replaced_maps_are_removed(finished: TinyStudy) -> None:
    assert voxplain("evaluate", "run", "--study", "study.yaml", *SHORT).exit_code == 0
    assert voxplain("run", finished.file).exit_code == 0
    assert (finished.run / "metrics.parquet").is_file()
    finished.write(methods=["saliency", {"name": "integrated_gradients", "steps": 3}])
    assert voxplain("run", finished.file).exit_code == 0
    assert not (finished.run / "metrics.parquet").exists()


def test_maps_from_elsewhere_are_scored(tiny: TinyStudy) -> None:
    save(tiny.folder / "other.nii.gz", blob((6, 6, 5)))
    np.save(tiny.folder / "flat.npy", np.ones((14, 12, 10), dtype=np.float32))
    mask(tiny.folder)
    result = voxplain(
        *("evaluate", "first.nii.gz", *FLAGS, "-t", "pixelwise:1", "--reference", "mask.nii.gz"),
        *("--map", "bright=other.nii.gz:sign=positive,kind=slope", "--map", "flat.npy"),
        *("-m", "roc_auc", "-m", "deletion:levels=4", "-o", "scores.csv"),
    )
    assert result.exit_code == 0, result.output
    with (tiny.folder / "scores.csv").open(newline="") as stream:
        rows = {(row["metric"], row["method"]): row for row in csv.DictReader(stream)}
    assert float(rows["roc_auc", "bright"]["value"]) == pytest.approx(1)
    assert "constant" in rows["deletion", "flat"]["reason"]
    assert float(rows["deletion", "bright"]["value"]) < float(rows["deletion", "center"]["value"])
    assert rows["roc_auc", "random"]["control"] == "True"
    assert "deletion: the map is constant" in flat(result.output)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("run", "--study", "none.yaml"), "none.yaml: there is no such study file"),
        (("run", "--study", "study.yaml", "-m", "deletoin"), "unknown metric 'deletoin'"),
        (("run", "--study", "study.yaml", "-m", "deletion:levles=3"), "unknown parameter"),
        (("run", "--map", "x.npy"), "--map does not go with a run"),
        (("run", "-o", "table.xlsx", "--study", "study.yaml"), "write .parquet or .csv"),
        (("run", "--study", "study.yaml", "--reference", "first.nii.gz"),
         "one reference for 2 cases"),
        (("run", "--study", "study.yaml", "--reference", "*_no.nii.gz"),
         "the reference of case a"),
        (("first.nii.gz", *FLAGS), "is not a run directory (no manifest.json)"),
        (("first.nii.gz", *FLAGS, "--map", "m.npy"), "say with --target"),
        (("first.nii.gz", *FLAGS, "--map", "no.npy", "-t", "1"), "there is no file no.npy"),
        (("first.nii.gz", *FLAGS, "--map", "first.nii.gz:sing=signed", "-t", "1"),
         "sing=signed; one"),
        (("first.nii.gz", *FLAGS, "--map", "cut.npy", "-t", "1"), "has shape (3, 3, 3)"),
        (("first.nii.gz", *FLAGS, "--map", "moved.nii.gz", "-t", "1"),
         "does not lie on the grid of the scan"),
        (("first.nii.gz", *FLAGS, "--map", "edges=first.nii.gz", "-t", "1"),
         "the name of a control"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence_and_exit_code_2(
    finished: TinyStudy, flags: tuple[str, ...], sentence: str
) -> None:
    np.save(finished.folder / "cut.npy", np.ones((3, 3, 3)))
    moved = nibabel.Nifti1Image(blob((6, 6, 5)), np.diag([1.0, 1, 1, 1]))
    nibabel.save(moved, finished.folder / "moved.nii.gz")
    result = voxplain("evaluate", *flags)
    assert result.exit_code == 2, result.output
    assert sentence in flat(result.stderr)
    assert len([line for line in result.stderr.splitlines() if line.startswith("error")]) == 1
    assert not (finished.run / "metrics.parquet").exists()


def test_other_weights_are_refused(finished: TinyStudy) -> None:
    import tiny_net
    import torch
    from safetensors.torch import save_file

    state = {name: torch.rand_like(part) for name, part in tiny_net.build().state_dict().items()}
    save_file(state, finished.folder / "other.safetensors")
    result = voxplain("evaluate", "run", "--weights", "other.safetensors", *SHORT)
    assert result.exit_code == 2
    assert "not those that were explained" in flat(result.stderr)
    save_weights(finished.folder / "other.safetensors")
    assert voxplain("evaluate", "run", "--weights", "other.safetensors", *SHORT).exit_code == 0


def test_a_network_without_a_file_must_be_named(finished: TinyStudy) -> None:
    text = (finished.run / "study.yaml").read_text()
    (finished.run / "study.yaml").write_text(re.sub(r"\n *factory:.*", "", text))
    result = voxplain("evaluate", "run", *SHORT)
    assert result.exit_code == 2
    assert "the run keeps no file of its network" in flat(result.stderr)


def test_metrics_are_listed_and_described() -> None:
    listed = voxplain("metrics")
    assert listed.exit_code == 0
    for name in metrics:
        assert f"  {name} " in listed.output
    described = flat(voxplain("metrics", "deletion").output)
    assert "better lower" in described
    assert "33 per map" in described
    assert "levels" in described
    wrong = voxplain("metrics", "deletoin")
    assert wrong.exit_code == 2
    assert "deletion" in wrong.stderr


def test_the_plan_shows_what_the_evaluation_takes(tiny: TinyStudy) -> None:
    tiny.write(metrics=[{"name": "deletion", "levels": 4}, {"name": "infidelity", "draws": 10}])
    result = voxplain("plan", tiny.file)
    assert result.exit_code == 0, result.output
    output = flat(result.output)
    assert "scored by:" in output
    assert "10 forwards for all" in output


@pytest.mark.parametrize(
    ("text", "name", "settings"),
    [
        ("{}/heat.map.nii.gz", "heat", ("signed", True, "value")),
        ("{}/flat.npy", "flat", ("signed", True, "value")),
        ("my=map={}/flat.npy", None, ()),
        ("mine={}/flat.npy:kind=slope", "mine", ("signed", False, "value")),
        ("{}/flat.npy:sign=absolute,resampling=mass", "flat", ("absolute", True, "mass")),
    ],
)
def test_a_map_is_called_as_it_is_named_or_like_its_file(
    tmp_path: Path, text: str, name: str | None, settings: tuple[Any, ...]
) -> None:
    save(tmp_path / "heat.map.nii.gz", blob((6, 6, 5)))
    np.save(tmp_path / "flat.npy", np.ones((14, 12, 10), dtype=np.float32))
    image = read_image(tmp_path / "heat.map.nii.gz")
    if name is None:
        with pytest.raises(InputError, match="there is no file"):
            _external_map(text.format(tmp_path), image)
        return
    found, external = _external_map(text.format(tmp_path), image)
    assert found == name
    assert (external.sign, external.share, external.resampling) == settings


def test_a_metric_that_fails_is_exit_code_1(
    finished: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("of a plug-in")

    monkeypatch.setattr(metrics.get("deletion"), "score", broken)
    result = voxplain("evaluate", "run", "--study", "study.yaml", "-o", "scores.csv", *SHORT)
    assert result.exit_code == 1, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert [error.split()[1] for error in errors] == ["a", "b"]
    assert all("deletion: RuntimeError" in error for error in errors)
    assert (finished.folder / "scores.csv").is_file()


def test_what_is_undefined_for_maps_is_said_once_and_of_controls_not_at_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        Score("gini", method, value, "up", control=control, reason=reason, case=case, model="n")
        for method, control, value, reason in (
            ("m", False, math.nan, "the map is constant"),
            ("n", False, 0.25, ""),
            ("random", True, math.nan, "a control has none"),
        )
        for case in ("a", "b")
    ]
    show_scores(Scores(tuple(rows)))
    shown = capsys.readouterr()
    assert flat(shown.err) == "note gini: the map is constant (2 of 4 scores)"
    table = [line.split() for line in shown.out.splitlines() if line.strip()]
    assert table == [["map", "gini", "↑"], ["m", "-"], ["n", "0.25"], ["random", "-"]]
