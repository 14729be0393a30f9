"""A study whose reference marks voxels of which it says nothing."""

from __future__ import annotations

from typing import Any

import nibabel
import numpy as np
import pytest
from tiny import AFFINE, SHAPE, TinyStudy

from voxplain.records.scores import Scores
from voxplain.study import Run, Study, run_study

IGNORE = 255


def write_reference(tiny: TinyStudy) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:9, 4:9, 3:7] = 1
    labels[9:, :, :] = IGNORE
    nibabel.save(nibabel.Nifti1Image(labels, AFFINE), tiny.folder / "ref.nii.gz")
    return labels


def go(tiny: TinyStudy, **case: Any) -> Run:
    cases = [{"id": "a", "image": "first.nii.gz", "reference": "ref.nii.gz", **case}]
    changes = {"cases": cases, "methods": ["saliency"], "metrics": ["roc_auc"]}
    return run_study(Study.load(tiny.write(**changes, run={"controls": False})))


def test_a_study_with_an_ignored_label(tiny: TinyStudy) -> None:
    """By hand from the map on disk; an edit of the setting is noticed by the next run."""
    labels = write_reference(tiny)
    run = go(tiny, reference_ignore=IGNORE)
    found = np.asarray(nibabel.load(tiny.run / run.manifest.maps[0].file).dataobj, np.float64)
    kept = labels != IGNORE
    inside, outside = (found[kept & (labels == label)] for label in (1, 0))
    above = inside[:, None] > outside[None]
    expected = (above + 0.5 * (inside[:, None] == outside[None])).mean()
    (row,) = Scores.read(tiny.run / "metrics.parquet").rows
    assert row.value == pytest.approx(expected, abs=1e-6)
    assert run.manifest.cases[0].reference_ignore == IGNORE
    go(tiny, reference_label=1)
    (other,) = Scores.read(tiny.run / "metrics.parquet").rows
    assert other.value != pytest.approx(expected, abs=1e-6)


def test_targets_of_the_reference_of_a_case_ignore_it_too(tiny: TinyStudy) -> None:
    labels = write_reference(tiny)
    target = {"kind": "region", "label": 1, "mask": "reference"}
    tiny.config["target"] = target
    run = go(tiny, reference_ignore=IGNORE)
    assert run.exit_code == 0
    scores_of = {"ignored": run.manifest.predictions[0].score}
    other = go(tiny)
    scores_of["label"] = other.manifest.predictions[0].score
    tiny.config["target"] = {**target, "value": 1}
    scores_of["value"] = go(tiny).manifest.predictions[0].score
    assert scores_of["ignored"] == pytest.approx(scores_of["value"])
    assert scores_of["label"] != pytest.approx(scores_of["value"])
    assert int((labels == 1).sum()) > 0
