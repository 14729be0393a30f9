"""The table of scores: what is asked of it, and what comes back from its files."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from voxplain.records.scores import Score, Scores

TABLE = Scores(
    tuple(
        Score(
            metric, method, 0.1 * number, "up", control=method == "edges", case=case, model="net",
            parameters={"levels": number}, facts={"unit": "mL", "list": [1, 2]},
            curve=((0.0, 1.0), (0.5, 0.25)), correct=None if case == "" else case == "a",
        )
        for number, (metric, method, case) in enumerate(
            (metric, method, case)
            for metric in ("gini", "auc")
            for method in ("saliency", "edges", "")
            for case in ("a", "b", "")
        )
    )
)  # fmt: skip


@pytest.mark.parametrize("asked", [{}, {"metric": "gini"}, {"control": True}, {"control": False},
                                   {"method": ""}, {"case": ""}, {"case": "", "control": False},
                                   {"metric": "auc", "method": "edges", "case": "b"}])  # fmt: skip
def test_the_rows_that_fit_all_that_is_asked(asked: dict[str, str | bool]) -> None:
    """Empty words and False are asked for like any other."""
    expected = [
        row for row in TABLE if all(getattr(row, name) == value for name, value in asked.items())
    ]
    assert list(TABLE.of(**asked)) == expected
    assert 0 < len(expected) <= len(TABLE)


def test_one_value_is_asked_of_one_row() -> None:
    one = TABLE.of(case="b")
    assert one.value("auc", "edges") == pytest.approx(1.3)
    with pytest.raises(KeyError, match="3 scores of auc for edges"):
        TABLE.value("auc", "edges")
    with pytest.raises(KeyError, match="0 scores"):
        one.value("auc", "random")


def test_a_table_comes_back_from_its_file(tmp_path: Path) -> None:
    TABLE.write(tmp_path / "t.parquet")
    assert Scores.read(tmp_path / "t.parquet") == TABLE
    assert Scores.joined([TABLE, Scores(), TABLE]) == TABLE + TABLE


def test_a_table_for_other_programs(tmp_path: Path) -> None:
    rows = (*TABLE.rows, Score("gini", "m", math.nan, "up", reason='a "reason", in words'))
    Scores(rows).export(tmp_path / "t.CSV")
    with (tmp_path / "t.CSV").open(newline="") as stream:
        read = list(csv.DictReader(stream))
    assert [row["method"] for row in read] == [row.method for row in rows]
    assert [float(row["value"]) for row in read[:-1]] == [row.value for row in TABLE]
    assert read[-1]["reason"] == 'a "reason", in words'
    TABLE.export(tmp_path / "t.table")
    assert Scores.read(tmp_path / "t.table") == TABLE
