"""Cohorts: read one case at a time, and split by patient."""

from __future__ import annotations

import pytest
import torch

from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.errors import ConfigError
from voxplain.grid import Grid
from voxplain.image import Image


def a_case(name: str) -> CohortCase:
    return CohortCase(name, name[0], Image(torch.zeros(1, 2, 2), Grid.default((2, 2))))


def test_cases_are_read_when_they_are_needed() -> None:
    read: list[str] = []

    def load(name: str) -> CohortCase:
        read.append(name)
        return a_case(name)

    cohort = Cohort({"a1": "a", "a2": "a", "b1": "b"}, load)
    assert (len(cohort), cohort.ids, cohort.patients) == (3, ("a1", "a2", "b1"), ("a", "a", "b"))
    assert read == []
    assert [case.id for case in cohort] == ["a1", "a2", "b1"]
    assert cohort["b1"].patient == "b"
    assert read == ["a1", "a2", "b1", "b1"]
    with pytest.raises(KeyError):
        cohort["c1"]


@pytest.mark.parametrize("seed", range(8))
def test_no_patient_is_on_both_sides_of_a_split(seed: int) -> None:
    names = [f"{patient}{number}" for patient in "abcdefg" for number in range(3)]
    cohort = Cohort.of([a_case(name) for name in names])
    selection, judged = cohort.split(0.3, seed)
    assert {*selection.patients}.isdisjoint(judged.patients)
    assert sorted((*selection.ids, *judged.ids)) == sorted(names)
    assert len({*judged.patients}) == 2
    assert judged.ids == tuple(name for name in names if name in {*judged.ids})


def test_one_patient_cannot_be_split() -> None:
    selection, judged = Cohort.of([a_case("a1"), a_case("a2")]).split()
    assert (len(selection), len(judged)) == (2, 0)


def test_two_cases_with_one_id_are_refused() -> None:
    with pytest.raises(ConfigError, match="same id"):
        Cohort.of([a_case("a1"), a_case("a1")])
