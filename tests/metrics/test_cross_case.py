"""Metrics that compare cases: closed forms, another library, patients, tables that grow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from every_metric import SEGMENT
from networks import segmenter
from torch import Tensor, nn

from voxplain.metrics import Case, evaluate
from voxplain.metrics.cross_case import ALONE, SUMMARY, completed
from voxplain.metrics.families.consistency import coarse
from voxplain.records.scores import Scores

BOTH = ("consistency", "sufficiency")
PREDICTED: dict[str, Any] = {"kind": "class_score", "label": "predicted"}
SIDE = 8


class FirstVoxels(nn.Module):
    """Class scores: the first voxels of the image."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1)[:, : self.classes]


def predicted_as(*classes: int) -> Tensor:
    """Images ``(B, 1, 8, 8)`` of which the network predicts these classes."""
    images = torch.rand(len(classes), 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    images[:, 0, 0, :3] = torch.nn.functional.one_hot(torch.tensor(classes), 3).float()
    return images


def marks(*cells: int) -> Tensor:
    """Maps ``(B, 1, 8, 8)`` whose strongest cell of 4 by 4 is the one of this number."""
    maps = 0.1 * torch.rand(len(cells), 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    for values, cell in zip(maps, cells, strict=True):
        row, column = divmod(cell, 4)
        values[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 1
    return maps


def scored(
    classes: Sequence[int], maps: Tensor, metric: Any = "consistency", **options: Any
) -> Scores:
    scores = evaluate(
        FirstVoxels(),
        predicted_as(*classes),
        {"m": maps},
        [metric],
        PREDICTED,
        controls=False,
        **options,
    )
    return scores.of(method="m")


def of_patients(*patients: str) -> list[Case]:
    return [Case(patient=patient) for patient in patients]


def numbered(numbers: range) -> list[Case]:
    return [Case(f"c{number}") for number in numbers]


def test_the_share_of_similar_cases_with_the_same_prediction() -> None:
    scores = scored([0, 0, 1, 0, 2], marks(5, 5, 5, 5, 9))
    assert scores.values()[:4] == pytest.approx([2 / 3, 2 / 3, 0, 2 / 3])
    assert math.isnan(scores.values()[4])
    assert "no other case has the same explanation" in scores.rows[4].reason
    assert [row.facts["alike"] for row in scores] == [3, 3, 3, 3, 0]
    assert [row.facts["chance"] for row in scores] == [0.5, 0.5, 0, 0.5, 0]
    assert all(row.direction == "up" for row in scores)


def test_an_explanation_applies_to_cases_that_share_most_of_it() -> None:
    """Strongest cells {0, 1}, {0, 2}, {0, 1}, {14, 15}: distances 2/3, 0, 1, 2/3, 1, 1."""
    maps = 0.01 * torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    for values, cells in zip(maps, ((0, 1), (0, 2), (0, 1), (14, 15)), strict=True):
        values.flatten()[list(cells)] += 1
    small = predicted_as(0, 1, 1, 1)[..., :4, :4]
    metric = {"name": "sufficiency", "cells": 16, "share": 0.125}

    def values_at(quantile: float) -> list[float]:
        spec = metric | {"quantile": quantile}
        return evaluate(
            FirstVoxels(), small, {"m": maps}, [spec], PREDICTED, controls=False
        ).values()

    assert values_at(0.1) == pytest.approx([0, math.nan, 0, math.nan], nan_ok=True)
    assert values_at(0.5) == pytest.approx([0, 0.5, 0.5, math.nan], nan_ok=True)
    # nothing in common is never alike, however many pairs are asked for
    assert values_at(0.99) == pytest.approx(values_at(0.5), nan_ok=True)


def test_cells_of_equal_strength_make_no_explanations_similar() -> None:
    """One cell is marked, two count: the second is drawn, and rarely the same in two cases."""
    maps = torch.zeros(12, 1, SIDE, SIDE)
    maps[..., 0, 0] = 1
    classes = [0, 1] * 6
    scores = scored(classes, maps, {"name": "consistency", "share": 0.125})
    assert sum(row.facts["alike"] for row in scores) < 60  # of 132
    assert all(0 in row.facts[SUMMARY]["top"] for row in scores)
    single_cell = scored(classes, maps)
    assert all(row.facts["alike"] == 11 for row in single_cell)


@pytest.mark.parametrize("metric", BOTH)
def test_one_prediction_for_all_cases_gives_no_score(metric: str) -> None:
    scores = scored([1, 1, 1], marks(5, 5, 9), metric)
    assert all("all cases have the same prediction" in row.reason for row in scores)
    assert all(math.isnan(row.value) for row in scores)


def test_images_of_one_patient_are_not_compared() -> None:
    classes, maps = [0, 0, 0, 1], marks(5, 5, 5, 5)
    alone = scored(classes, maps).values()
    grouped = scored(classes, maps, cases=of_patients("p", "p", "q", "q"))
    assert alone == pytest.approx([2 / 3, 2 / 3, 2 / 3, 0])
    assert grouped.values() == pytest.approx([0.5, 0.5, 1, 0])
    assert [row.facts["others"] for row in grouped] == [2, 2, 2, 2]
    assert [row.patient for row in grouped] == ["p", "p", "q", "q"]
    (first, *_) = scored(classes, maps, cases=of_patients("p", "p", "p", "p"))
    assert first.reason == ALONE


@pytest.mark.parametrize("metric", BOTH)
def test_a_single_case_has_no_value_and_says_why(metric: str) -> None:
    (row,) = scored([0], marks(5), metric)
    assert math.isnan(row.value)
    assert row.reason == ALONE


@pytest.mark.parametrize("metric", BOTH)
def test_a_table_can_grow_and_be_completed_again(metric: str, tmp_path: Path) -> None:
    source = torch.Generator().manual_seed(3)
    classes = torch.randint(0, 2, (12,), generator=source).tolist()
    maps = marks(*torch.randint(0, 3, (12,), generator=source).tolist())
    whole = scored(classes, maps, metric, cases=numbered(range(12)))
    first = scored(classes[:5], maps[:5], metric, cases=numbered(range(5)))
    first.write(tmp_path / "t.parquet")
    images = predicted_as(*classes)[5:]
    rest = evaluate(
        FirstVoxels(), images, {"m": maps[5:]}, [metric], PREDICTED, controls=False,
        cases=numbered(range(5, 12)),
    )  # fmt: skip
    again = completed(Scores.read(tmp_path / "t.parquet") + rest)
    assert str(again.values()) == str(whole.values())
    assert str(completed(again)) == str(again)
    assert str(again.values()[:5]) != str(first.values())
    alone = completed(Scores(again.rows[:1]))
    assert alone.rows[0].reason == ALONE
    assert math.isnan(alone.rows[0].value)


def test_rows_of_other_metrics_and_of_missing_ones_stay() -> None:
    scores = scored([0, 0, 1], marks(5, 5, 5))
    strange = tuple(replace(row, metric="of a plug-in") for row in scores)
    altered = tuple(replace(row, parameters={"gone": 1}) for row in scores)
    plain = tuple(replace(row, facts={}, value=0.3, reason="") for row in scores)
    for rows in (strange, altered, plain):
        assert completed(Scores(rows)).rows == rows


def test_rows_of_other_networks_targets_and_maps_are_not_compared() -> None:
    """Other networks, targets, maps and parameters are tables of their own."""
    rows = scored([0, 0], marks(5, 5)).rows
    for difference in ({"model": "b"}, {"target": "2"}, {"method": "n"}, {"seed": 1}):
        apart = completed(Scores((rows[0], replace(rows[1], **difference))))
        assert [row.reason for row in apart] == [ALONE, ALONE]
    changed = {**rows[1].parameters, "share": 0.06}
    apart = completed(Scores((rows[0], replace(rows[1], parameters=changed))))
    assert [row.reason for row in apart] == [ALONE, ALONE]


def test_volumes_up_to_a_factor_of_two_are_the_same_prediction() -> None:
    """Objects of 0, 8, 16, 17 voxels: 8 is like 16, 16 like 17, and nothing like none."""
    images = torch.full((4, 1, SIDE, SIDE), -1.0)
    for image, size in zip(images, (0, 8, 16, 17), strict=True):
        image.flatten()[:size] = 1
    network = nn.Identity()  # a one-channel output
    scores = evaluate(
        network, images, {"m": marks(5, 5, 5, 5)}, ["consistency"],
        {"kind": "class_score", "label": 1}, controls=False,
    )  # fmt: skip
    assert scores.values() == pytest.approx([0, 1 / 3, 2 / 3, 1 / 3])
    assert [row.facts[SUMMARY]["size"] for row in scores] == [0, 8, 16, 17]


def test_a_class_of_several_is_there_or_not() -> None:
    """Under sigmoid the statement is about the class of the target, not the strongest one."""
    images = predicted_as(0, 0, 0)
    images[:, 0, 0, :3] = torch.tensor([[9.0, 1, -1], [-1, 1, 9], [9, -1, 1]])
    target = {"kind": "class_score", "label": 1, "activation": "sigmoid"}
    scores = evaluate(FirstVoxels(), images, {"m": marks(5, 5, 5)}, ["consistency"], target)
    assert scores.of(method="m").values() == pytest.approx([0.5, 0.5, 0])


def test_random_maps_are_consistent_by_chance() -> None:
    source = torch.Generator().manual_seed(0)
    classes = torch.randint(0, 2, (400,), generator=source).tolist()
    maps = torch.randn(400, 1, SIDE, SIDE, generator=source)
    for metric in BOTH:
        scores = scored(classes, maps, metric)
        defined = [row for row in scores if math.isfinite(row.value)]
        assert len(defined) > 300
        chance = np.mean([row.facts["chance"] for row in defined])
        assert np.mean([row.value for row in defined]) == pytest.approx(chance, abs=0.03)


@pytest.mark.parametrize("shape", [(1, 8, 8), (8, 1, 8)])
def test_cells_of_a_slice_are_those_of_the_picture(shape: tuple[int, ...]) -> None:
    picture = torch.rand(8, 8)
    assert torch.equal(coarse(picture, 16).flatten(), coarse(picture.view(shape), 16).flatten())
    assert coarse(picture, 16).shape == (4, 4)
    assert coarse(torch.rand(9, 9, 9), 16).shape == (3, 3, 3)
    assert coarse(torch.rand(3, 50), 64).shape == (3, 8)


def test_cells_do_not_depend_on_the_size_of_the_image() -> None:
    picture = torch.rand(8, 12, dtype=torch.float64)
    finer = picture.repeat_interleave(3, 0).repeat_interleave(2, 1)
    assert torch.allclose(coarse(picture, 16), coarse(finer, 16))
    odd = coarse(torch.ones(7, 11), 16)
    assert torch.equal(odd, torch.ones_like(odd))


def test_cells_of_another_grid_are_others() -> None:
    """An image of three rows has three rows of cells: none of them is one of four."""
    first = scored([0, 1], marks(0, 0), cases=[Case("a"), Case("b")])
    image, values = torch.zeros(1, 1, 3, 32), torch.rand(1, 1, 3, 32)
    values[..., 0, 0] = 99
    third = evaluate(
        FirstVoxels(),
        image,
        {"m": values},
        ["consistency"],
        PREDICTED,
        controls=False,
        cases=[Case("c")],
    )
    scores = completed(first + third)
    assert [row.facts[SUMMARY]["top"] for row in scores] == [[0], [0], [0]]
    assert [row.facts["alike"] for row in scores] == [1, 1, 0]


def test_summaries_stay_small_for_large_images() -> None:
    images = torch.rand(2, 1, 24, 24, 24)
    scores = evaluate(segmenter(3, 1), images, {"m": images}, list(BOTH), SEGMENT)
    assert all(len(str(row.facts)) < 400 for row in scores)
    assert {row.method for row in scores if row.metric == "consistency"} > {"m", "random", "edges"}
