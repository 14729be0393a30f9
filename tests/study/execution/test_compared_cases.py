"""Cross-case metrics in a study: the table is completed, cases are added, patients are kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from test_evaluation import counted, go, table, with_reference
from tiny import AFFINE, TinyStudy, blob, save

from voxplain.errors import ConfigError
from voxplain.metrics import Metric, parse_metric
from voxplain.metrics.cross_case import ALONE
from voxplain.study import Study
from voxplain.study.kept_study import study_of_run
from voxplain.study.reevaluate import evaluate_run, reevaluation_of

__all__ = ["counted"]

SAME: dict[str, Any] = {"name": "consistency", "cells": 2}
"""Two cells along each axis: the bright balls of the cases lie in the same one."""


def cases(tiny: TinyStudy, count: int, **facts: Any) -> list[dict[str, Any]]:
    """Cases with a ball at the same place, the third much larger."""
    for number in range(count):
        array = blob((3, 3, 2)) * (3 if number == 2 else 1 + 0.1 * number)
        save(tiny.folder / f"ball{number}.nii.gz", array.astype(np.float32))
    return [{"id": f"c{n}", "image": f"ball{n}.nii.gz", **facts} for n in range(count)]


def consistency(tiny: TinyStudy, **changes: Any) -> list[Any]:
    run, _ = go(tiny, metrics=[SAME], run={"controls": False}, methods=["saliency"], **changes)
    assert run.exit_code == 0, [task.reason for task in run.failed]
    return list(table(run).of(metric="consistency"))


def test_a_study_completes_its_table_and_goes_on_with_more_cases(
    tiny: TinyStudy, counted: list[tuple[str, str, str]]
) -> None:
    (alone,) = consistency(tiny, cases=cases(tiny, 1))
    assert (math.isnan(alone.value), alone.reason) == (True, ALONE)
    counted.clear()
    rows = consistency(tiny, cases=cases(tiny, 3))
    assert {case for case, _, _ in counted} == {"c1", "c2"}
    assert [row.value for row in rows] == [0.5, 0.5, 0]
    assert [row.facts["alike"] for row in rows] == [2, 2, 2]
    counted.clear()
    assert consistency(tiny) == rows
    assert counted == []


def test_a_patient_is_added_without_a_new_evaluation(
    tiny: TinyStudy, counted: list[tuple[str, str, str]]
) -> None:
    apart = consistency(tiny, cases=cases(tiny, 3))
    counted.clear()
    together = consistency(tiny, cases=cases(tiny, 3, patient="p1"))
    assert counted == []
    assert [row.patient for row in apart] == ["", "", ""]
    assert [row.patient for row in together] == ["p1", "p1", "p1"]
    assert [row.reason for row in together] == [ALONE] * 3
    run = go(tiny)[0]
    assert [record.patient for record in run.manifest.cases] == ["p1"] * 3
    (words,) = {case["patient"] for case in _resolved(run.folder)["cases"]}
    assert words == "p1"


def test_a_pattern_fills_in_the_patient(tiny: TinyStudy) -> None:
    cases(tiny, 2)
    pattern = {"id": "x*", "image": "ball*.nii.gz", "patient": "p*"}
    expanded = Study.load(tiny.write(cases=[pattern])).expanded_cases()
    assert [(case.id, case.patient) for case in expanded] == [("x0", "p0"), ("x1", "p1")]
    wrong = {"id": "x", "image": "ball0.nii.gz", "patient": "p*"}
    with pytest.raises(ConfigError, match="the patient 'p\\*' has a \\*"):
        Study.load(tiny.write(cases=[wrong])).expanded_cases()


def test_a_run_that_is_evaluated_later_is_compared_as_a_whole(tiny: TinyStudy) -> None:
    run, _ = go(tiny, cases=cases(tiny, 3, patient="p", truth=1), methods=["saliency"])
    study = study_of_run(run.folder, {"factory": "tiny_net:build", "weights": _weights(tiny)})
    assert [(case.patient, case.truth) for case in study.expanded_cases()] == [("p", 1)] * 3
    own = Study.load(tiny.write(cases=[*cases(tiny, 2), {**cases(tiny, 3)[2], "patient": "q"}]))
    metric: Metric = parse_metric(SAME)
    result = evaluate_run(run.folder, reevaluation_of(own, [metric], None))
    maps = result.scores.of(method="saliency")
    assert [row.value for row in maps] == [0.5, 0.5, 0]
    assert str(result.scores) == str(table(run))


def test_calibration_is_one_row_of_the_network(
    tiny: TinyStudy, counted: list[tuple[str, str, str]]
) -> None:
    metrics = ["calibration", "sparseness"]
    run, _ = go(tiny, metrics=metrics, cases=with_reference(tiny))
    rows = table(run)
    first, second = rows.of(metric="calibration")
    assert (first.case, first.method, first.control) == ("a", "", False)
    assert 0 <= first.value <= 1
    assert first.facts["error_scaled"] <= first.value
    assert "no reference mask" in second.reason
    assert {row.correct for row in rows.of(case="a")} == {True}
    assert {row.correct for row in rows.of(case="b")} == {None}
    counted.clear()
    again, _ = go(tiny, methods=["saliency"])
    assert counted == []
    assert len(table(again).of(metric="calibration")) == 2


def test_a_prediction_beside_the_reference_is_wrong(tiny: TinyStudy) -> None:
    away = (blob((12, 10, 8)) > 1).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(away, AFFINE), tiny.folder / "mask.nii.gz")
    case = {**tiny.config["cases"][0], "reference": "mask.nii.gz"}
    run, _ = go(tiny, metrics=["roc_auc"], cases=[case])
    assert {row.correct for row in table(run)} == {False}


def _resolved(folder: Path) -> Any:
    import yaml

    return yaml.safe_load((folder / "study.yaml").read_text())


def _weights(tiny: TinyStudy) -> str:
    return str(tiny.folder / "net.safetensors")


def test_whether_a_classifier_was_right_is_in_every_row(tiny: TinyStudy) -> None:
    (tiny.packages / "three.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "def build() -> nn.Module:\n"
        "    torch.manual_seed(0)\n"
        "    body = nn.Conv3d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1)\n"
        "    return nn.Sequential(*body, nn.Flatten(), nn.Linear(4, 3))\n"
    )
    listed = cases(tiny, 4)
    for case, truth in zip(listed, (0, 1, 2, None), strict=True):
        case |= {"patient": f"p{truth}"} | ({} if truth is None else {"truth": truth})
    run, _ = go(
        tiny, cases=listed, methods=["saliency"], models=[{"name": "n", "factory": "three:build"}],
        target=1, metrics=["sparseness"], run={"controls": False},
    )  # fmt: skip
    found = {}
    for record in run.manifest.predictions:
        best = max(record.scores, key=lambda name: record.scores[name])
        found[record.case] = [*record.scores].index(best)
    rows = table(run)
    assert [row.patient for row in rows] == ["p0", "p1", "p2", "pNone"]
    assert [row.correct for row in rows] == [
        found["c0"] == 0,
        found["c1"] == 1,
        found["c2"] == 2,
        None,
    ]
    assert True in {row.correct for row in rows}
