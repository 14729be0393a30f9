"""Formulas over concepts against brute force, and of units that are known."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from phantom_cohort import Planted, bank, boxes

from voxplain.concepts.bank import ConceptBank
from voxplain.concepts.dissection import DissectionSettings, dissect
from voxplain.concepts.dissection.case_masks import bits_of, coded
from voxplain.concepts.formulas import (
    Formula,
    PatternCounts,
    best_formulas,
    compose,
    formulas,
)
from voxplain.concepts.formulas.bands import band_borders
from voxplain.errors import ConfigError
from voxplain.records.formulas import read_formulas, write_formulas

OPERATORS = ("AND", "OR", "AND NOT")


def masks_and_units(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping concepts, a unit that follows a formula but for noise, and one without any."""
    generator = np.random.default_rng(seed)
    masks = generator.random((5, 4000)) < np.array([0.3, 0.4, 0.2, 0.5, 0.1])[:, None]
    planted = (masks[1] & ~masks[3]) | masks[4]
    noise = generator.random(4000) < 0.05
    return masks, np.stack([planted, planted ^ noise, noise, np.zeros(4000, dtype=bool)])


def counts_of(masks: np.ndarray, units: np.ndarray) -> PatternCounts:
    codes, index = np.unique(coded(masks), return_inverse=True)
    on = np.stack([np.bincount(index[unit], minlength=len(codes)) for unit in units])
    every = np.bincount(index, minlength=len(codes))
    return PatternCounts(bits_of(codes, len(masks)).T, every.astype(float), on.astype(float))


def every_iou(masks: np.ndarray, unit: np.ndarray) -> dict[Formula, float]:
    """Each formula on the voxels themselves, none left out for being the same as another."""
    found = {}
    for length in (1, 2, 3):
        for concepts in permutations(range(len(masks)), length):
            for operators in product(OPERATORS, repeat=length - 1):
                formula = Formula(concepts, operators)
                held = formula.holds(masks)
                union = (held | unit).sum()
                found[formula] = (held & unit).sum() / union if union else np.nan
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_search_equals_brute_force(seed: int) -> None:
    masks, units = masks_and_units(seed)
    best = best_formulas(counts_of(masks, units))
    for (formula, iou), unit in zip(best[:3], units, strict=False):
        every = every_iou(masks, unit)
        assert formula is not None
        assert iou == pytest.approx(max(every.values()))
        assert every[formula] == pytest.approx(iou)
    assert best[0][1] == pytest.approx(1)
    assert best[0][0] == Formula((1, 3, 4), ("AND NOT", "OR"))
    assert best[3][0] is None


def test_no_formula_is_missing_and_none_is_twice() -> None:
    masks = np.array(list(product([False, True], repeat=4))).T
    kept = formulas(4)
    tables = {formula.holds(masks).tobytes() for formula in kept}
    all_tables = {
        Formula(concepts, operators).holds(masks).tobytes()
        for length in (1, 2, 3)
        for concepts in permutations(range(4), length)
        for operators in product(OPERATORS, repeat=length - 1)
    }
    assert tables == all_tables
    assert len({*kept}) == len(kept)
    assert len(kept) < 4 + 12 * 3 + 24 * 9


def test_a_formula_reads_from_left_to_right() -> None:
    names = ["tumor", "edema", "left"]
    assert (
        Formula((0, 1, 2), ("AND NOT", "AND")).in_words(names) == "(tumor AND NOT edema) AND left"
    )
    assert Formula((2,)).in_words(names) == "left"
    with pytest.raises(ConfigError, match="26 concepts are too many"):
        formulas(26)


def test_bands_separate_values_that_lie_apart() -> None:
    edges = np.array([[0.0, 0.1, 0.2, 5.0, 5.1, 9.0, 9.1, 9.2]])
    counts = np.array([[50.0, 10, 10, 20, 20, 5, 5, 5, 5]])
    (borders,) = band_borders(edges, counts, 3)
    assert 0.2 < borders[0] < 5
    assert 5.1 < borders[1] < 9


@pytest.mark.parametrize("rank", [2, 3])
def test_a_unit_is_named_by_a_formula_on_held_out_cases(rank: int, tmp_path: Path) -> None:
    concepts = bank().only(["first", "second"])
    settings = DissectionSettings(region="image", draws=10)
    network, cohort = Planted(rank).eval(), boxes(rank=rank)
    found = dissect(network, cohort, concepts, settings=settings)
    record = compose(network, cohort, concepts, found)
    assert record.searched == len(formulas(2))
    named = {each.unit: each for each in record.units}
    assert named["act/0"].formula == "first AND second"
    assert (named["act/0"].iou, named["act/0"].selection_iou) == pytest.approx((1, 1))
    assert named["act/0"].interval == pytest.approx((1, 1))
    assert named["act/1"].formula == "unnamed"
    assert named["act/2"].formula == "first"
    bands = [each for each in record.bands if each.unit == "act/0" and each.best]
    assert {each.formula for each in bands} >= {"first AND second"}
    write_formulas(tmp_path, record)
    assert read_formulas(tmp_path) == [record]


def test_concepts_that_were_not_found_make_no_formula() -> None:
    network, cohort = Planted().eval(), boxes()
    concepts = ConceptBank.of([{"kind": "labels", "names": {"absent": 9}}])
    found = dissect(network, cohort, concepts, settings=DissectionSettings(region="image", draws=5))
    with pytest.raises(ConfigError, match="formulas are made of 1 to 25 concepts, and 0"):
        compose(network, cohort, concepts, found)
