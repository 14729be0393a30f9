"""Several images of one patient: wider intervals, fewer than eight patients are few."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_runs import RunWriter
from synthetic_scores import columns, rows, survived, table
from test_report_page import Page

from voxplain.records.scores import Score, Scores
from voxplain.report import render
from voxplain.report.trust.score_index import score_indexes
from voxplain.report.trust.tables import tables, wins
from voxplain.report.trust.verdict import PLACE, verdicts

LEVELS = {"saliency": 0.9, "random": 0.5, "edges": 0.6}


def of_patients(found: Sequence[Score], images: int) -> list[Score]:
    """The same with so many images of each patient."""
    return [replace(row, patient=f"q{int(row.case[1:]) // images}") for row in found]


def placed(cases: int, images: int) -> tuple[str, str]:
    found = rows("roc_auc", columns(LEVELS, cases, 0.01), family="localization")
    (ledger,) = score_indexes(of_patients(found, images))
    (verdict,) = verdicts(ledger)
    (statement,) = [part for part in verdict.statements if part.topic == PLACE]
    return statement.status, statement.text


def test_the_interval_is_that_of_patients() -> None:
    """Eight copies of an image say what one says."""
    levels = np.random.default_rng(0).normal(size=10).tolist()
    copies = [level for level in levels for _ in range(8)]
    (one,) = score_indexes(rows("roc_auc", {"a": levels}))
    (many,) = score_indexes(of_patients(rows("roc_auc", {"a": copies}), 8))
    (apart,) = score_indexes(rows("roc_auc", {"a": copies}))
    summaries = [ledger.asked[0].maps[0].summary for ledger in (one, many, apart)]
    assert summaries[1].interval == pytest.approx(summaries[0].interval)
    widths = [high - low for low, high in (each.interval or (0, 0) for each in summaries)]
    assert widths[1] > 2 * widths[2]
    assert [each.patients for each in summaries] == [10, 10, 80]
    assert [(each.cases, each.patients) for each in (one, many)] == [(10, 10), (80, 10)]


def test_a_claim_needs_eight_patients() -> None:
    status, text = placed(16, 2)
    assert status == "good"
    assert text.endswith("16 cases of 8 patients)")
    status, text = placed(14, 2)
    assert status == "open"
    assert "14 cases of 7 patients are too few for an interval, which needs 8" in text


@pytest.mark.parametrize(
    ("images", "words"),
    [(1, ", 16 cases"), (2, ", 16 cases of 8 patients"), (4, ", on 16 cases of 4 patients only")],
)
def test_cascades_count_patients(images: int, words: str) -> None:
    (ledger,) = score_indexes(of_patients(survived({"a": 0.9}, 16), images))
    (verdict,) = verdicts(ledger)
    (statement,) = verdict.statements
    assert statement.text.endswith(words)


def test_differences_between_methods_are_those_of_patients() -> None:
    """Clear on twelve images, not on six patients of two images each."""
    same = rows("roc_auc", columns({"a": 0.5, "b": 0.9}, 12, 0.02))
    (apart,), (together,) = score_indexes(same), score_indexes(of_patients(same, 2))
    assert wins(apart.asked[0]) == {"a": set(), "b": {"a"}}
    assert wins(together.asked[0]) == {"a": set(), "b": set()}
    (shown,) = tables(together.asked)
    assert shown.clear == ()
    assert all(not cell.spread for row in shown.rows for cell in row.cells)


def test_old_tables_have_no_patients_and_are_read(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    table(9).write(tmp_path / "t.parquet")
    held = parquet.read_table(tmp_path / "t.parquet")
    parquet.write_table(held.drop_columns(["patient", "correct"]), tmp_path / "old.parquet")
    assert isinstance(held, pyarrow.Table)
    old = Scores.read(tmp_path / "old.parquet")
    assert str(old) == str(table(9))
    (ledger,) = score_indexes(old)
    assert (ledger.cases, ledger.patients) == (9, 9)


@pytest.mark.parametrize("images", [1, 2])
def test_the_page_counts_patients(images: int, tmp_path: Path) -> None:
    RunWriter(tmp_path).finish()
    Scores(tuple(of_patients(table(12).rows, images))).write(tmp_path / "metrics.parquet")
    render(tmp_path)
    words = re.sub(r"\s+", " ", Page(tmp_path / "report.html").words)
    few = "Few cases: 12 cases of 6 patients were judged."
    assert (few in words) == (images == 2)
    assert ("Images of one patient are resampled together" in words) == (images == 2)
    assert ("Every case counts as a patient of its own" in words) == (images == 1)
    assert ("better than every control" in words) == (images == 1)
