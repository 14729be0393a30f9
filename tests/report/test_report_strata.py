"""Right and wrong predictions: means apart where both occur, nothing where they do not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from synthetic_runs import RunWriter
from synthetic_scores import rows
from test_report_page import Page

from voxplain.records.scores import Score, Scores
from voxplain.report import render
from voxplain.report.trust.score_index import score_indexes
from voxplain.report.trust.strata import ByCorrectness, by_correctness

NAN = float("nan")
VALUES = {"saliency": [0.9, 0.8, 0.4, NAN], "grad_cam": [0.7, 0.7, 0.2, 0.4], "random": [0.5] * 4}


def told(correct: Sequence[bool | None], family: str = "localization") -> list[Score]:
    found = rows("roc_auc", VALUES, family=family)
    return [replace(row, correct=correct[int(row.case[1:])]) for row in found]


def apart(correct: Sequence[bool | None]) -> ByCorrectness | None:
    (ledger,) = score_indexes(told(correct))
    return by_correctness(ledger.asked)


def test_means_of_right_and_of_wrong_predictions() -> None:
    found = apart([True, True, False, False])
    assert found is not None
    assert (found.right, found.wrong) == (2, 2)
    assert found.lines == (("ROC-AUC", "Saliency 0.85 / 0.40; Grad-CAM 0.70 / 0.30"),)
    undefined = apart([True, None, None, False])
    assert undefined is not None
    assert undefined.lines == (("ROC-AUC", "Saliency 0.90 / –; Grad-CAM 0.70 / 0.40"),)


def test_one_kind_of_prediction_is_not_told_apart() -> None:
    assert apart([True] * 4) is None
    assert apart([False] * 4) is None
    assert apart([None] * 4) is None


def test_the_page_tells_them_apart_for_localization_only(tmp_path: Path) -> None:
    for family, shown in (("localization", True), ("faithfulness", False)):
        folder = tmp_path / family
        folder.mkdir()
        RunWriter(folder).finish()
        kept = told([True, True, False, False], family)
        Scores(tuple(kept)).write(folder / "metrics.parquet")
        assert Scores.read(folder / "metrics.parquet").rows[2].correct is False
        render(folder)
        words = re.sub(r"\s+", " ", Page(folder / "report.html").words)
        assert ("where the prediction is right (2 cases) / wrong (2)" in words) == shown
        assert ("Saliency 0.85 / 0.40" in words) == shown
