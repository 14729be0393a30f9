"""Several images of one patient: wider intervals, and no claims below eight patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from synthetic_runs import RunWriter
from synthetic_scores import columns, randomization_scores, rows, score_table

from voxplain.records.scores import Score, Scores
from voxplain.report import render
from voxplain.report.trust.score_index import score_indexes
from voxplain.report.trust.tables import clear_wins, tables
from voxplain.report.trust.verdict import LOCALIZATION, verdicts

LEVELS = {"saliency": 0.9, "random": 0.5, "edges": 0.6}


def of_patients(scores: Sequence[Score], images: int) -> list[Score]:
    """The scores with that many images of each patient."""
    return [replace(row, patient=f"q{int(row.case[1:]) // images}") for row in scores]


def localization(cases: int, images: int) -> tuple[str, str]:
    scores = rows("roc_auc", columns(LEVELS, cases, 0.01), family="localization")
    (index,) = score_indexes(of_patients(scores, images))
    (verdict,) = verdicts(index)
    (statement,) = [each for each in verdict.statements if each.topic == LOCALIZATION]
    return statement.status, statement.text


def test_the_interval_is_that_of_patients() -> None:
    """Eight copies of an image count as one image."""
    levels = np.random.default_rng(0).normal(size=10).tolist()
    copies = [level for level in levels for _ in range(8)]
    (single,) = score_indexes(rows("roc_auc", {"a": levels}))
    (repeated,) = score_indexes(of_patients(rows("roc_auc", {"a": copies}), 8))
    (unrelated,) = score_indexes(rows("roc_auc", {"a": copies}))
    indexes = (single, repeated, unrelated)
    summaries = [index.metrics[0].maps[0].summary for index in indexes]
    assert summaries[1].interval == pytest.approx(summaries[0].interval)
    widths = [high - low for low, high in (summary.interval or (0, 0) for summary in summaries)]
    assert widths[1] > 2 * widths[2]
    assert [summary.patients for summary in summaries] == [10, 10, 80]
    assert [(index.cases, index.patients) for index in (single, repeated)] == [(10, 10), (80, 10)]


def test_a_claim_needs_eight_patients() -> None:
    status, text = localization(16, 2)
    assert status == "good"
    assert text.endswith("16 cases of 8 patients)")
    status, text = localization(14, 2)
    assert status == "open"
    assert "14 cases of 7 patients are too few for an interval, which needs 8" in text


@pytest.mark.parametrize(
    ("images", "words"),
    [(1, ", 16 cases"), (2, ", 16 cases of 8 patients"), (4, ", on 16 cases of 4 patients only")],
)
def test_cascades_count_patients(images: int, words: str) -> None:
    (index,) = score_indexes(of_patients(randomization_scores({"a": 0.9}, 16), images))
    (verdict,) = verdicts(index)
    (statement,) = verdict.statements
    assert statement.text.endswith(words)


def test_differences_between_methods_are_those_of_patients() -> None:
    """Clear on twelve images, not on six patients of two images each."""
    same = rows("roc_auc", columns({"a": 0.5, "b": 0.9}, 12, 0.02))
    (separate,), (grouped,) = score_indexes(same), score_indexes(of_patients(same, 2))
    assert clear_wins(separate.metrics[0]) == {"a": set(), "b": {"a"}}
    assert clear_wins(grouped.metrics[0]) == {"a": set(), "b": set()}
    (table,) = tables(grouped.metrics)
    assert table.clear == ()
    assert all(not cell.spread for row in table.rows for cell in row.cells)


def test_old_tables_have_no_patients_and_are_read(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    score_table(9).write(tmp_path / "t.parquet")
    current = parquet.read_table(tmp_path / "t.parquet")
    parquet.write_table(current.drop_columns(["patient", "correct"]), tmp_path / "old.parquet")
    assert isinstance(current, pyarrow.Table)
    old = Scores.read(tmp_path / "old.parquet")
    assert str(old) == str(score_table(9))
    (index,) = score_indexes(old)
    assert (index.cases, index.patients) == (9, 9)


@pytest.mark.parametrize("images", [1, 2])
def test_the_page_counts_patients(images: int, tmp_path: Path) -> None:
    RunWriter(tmp_path).finish()
    Scores(tuple(of_patients(score_table(12).rows, images))).write(tmp_path / "metrics.parquet")
    render(tmp_path)
    text = Page(tmp_path / "report.html").text
    few = "Few cases: 12 cases of 6 patients were scored."
    assert (few in text) == (images == 2)
    assert ("Images of one patient are resampled together" in text) == (images == 2)
    assert ("Every case counts as a patient of its own" in text) == (images == 1)
    assert ("better than every control" in text) == (images == 1)
