"""Means over right and over wrong predictions, where there are both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from html_page import Page
from synthetic_runs import RunWriter
from synthetic_scores import rows

from voxplain.records.scores import Score, Scores
from voxplain.report import render
from voxplain.report.trust.by_correctness import ByCorrectness, by_correctness
from voxplain.report.trust.score_index import score_indexes

NAN = float("nan")
VALUES = {"saliency": [0.9, 0.8, 0.4, NAN], "grad_cam": [0.7, 0.7, 0.2, 0.4], "random": [0.5] * 4}


def scored(correct: Sequence[bool | None], family: str = "localization") -> list[Score]:
    scores = rows("roc_auc", VALUES, family=family)
    return [replace(row, correct=correct[int(row.case[1:])]) for row in scores]


def means(correct: Sequence[bool | None]) -> ByCorrectness | None:
    (index,) = score_indexes(scored(correct))
    return by_correctness(index.metrics)


def test_means_of_right_and_of_wrong_predictions() -> None:
    defined = means([True, True, False, False])
    assert defined is not None
    assert (defined.right, defined.wrong) == (2, 2)
    assert defined.lines == (("ROC-AUC", "Saliency 0.85 / 0.40; Grad-CAM 0.70 / 0.30"),)
    undefined = means([True, None, None, False])
    assert undefined is not None
    assert undefined.lines == (("ROC-AUC", "Saliency 0.90 / –; Grad-CAM 0.70 / 0.40"),)


def test_predictions_of_one_kind_have_no_means_of_their_own() -> None:
    assert means([True] * 4) is None
    assert means([False] * 4) is None
    assert means([None] * 4) is None


def test_the_page_has_them_for_localization_only(tmp_path: Path) -> None:
    for family, shown in (("localization", True), ("faithfulness", False)):
        folder = tmp_path / family
        folder.mkdir()
        RunWriter(folder).finish()
        kept = scored([True, True, False, False], family)
        Scores(tuple(kept)).write(folder / "metrics.parquet")
        assert Scores.read(folder / "metrics.parquet").rows[2].correct is False
        render(folder)
        words = Page(folder / "report.html").text
        assert ("where the prediction is right (2 cases) / wrong (2)" in words) == shown
        assert ("Saliency 0.85 / 0.40" in words) == shown
