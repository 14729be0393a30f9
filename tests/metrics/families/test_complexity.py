"""Complexity by hand: extremes, physical sizes, channels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from metric_cases import CLASS_ONE, LinearClasses, bright, metric_context, number, reason, value
from torch import Tensor

from voxplain.image import Image
from voxplain.metrics import MapField, MetricContext, evaluate


def _context(rank: int = 2, spacing: object = None, channels: int = 1) -> MetricContext:
    image = bright(rank, channels, 4)
    scan = Image.from_array(image, spacing) if spacing else image  # type: ignore[arg-type]
    return metric_context(LinearClasses(tuple(image.shape)), scan)


def _one(rank: int = 2) -> Tensor:
    values = torch.zeros(1, *(4,) * rank, dtype=torch.float64)
    values[(0, *(1,) * rank)] = -2.0
    return values


def _even(rank: int = 2) -> Tensor:
    """The same magnitude everywhere, of both signs."""
    values = torch.ones(1, *(4,) * rank, dtype=torch.float64)
    values[0, ::2] = -1
    return values


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize(
    ("metric", "alone", "even"),
    [
        ("sparseness", lambda n: 1 - 1 / n, lambda n: 0),
        ("entropy", lambda n: 0, lambda n: 1),
        ("effective_complexity", lambda n: 1 / n, lambda n: 1),
        ("effective_volume", lambda n: 1, lambda n: math.ceil(0.9 * n)),
    ],
)
def test_extremes(metric: str, alone: object, even: object, rank: int) -> None:
    context, count = _context(rank), 4**rank
    assert number(metric, _one(rank), context) == pytest.approx(alone(count))  # type: ignore[operator]
    assert number(metric, _even(rank), context) == pytest.approx(even(count))  # type: ignore[operator]


def test_gini_and_entropy_by_their_definitions() -> None:
    values = torch.randn(1, 4, 4, dtype=torch.float64)
    sizes = values.abs().flatten().numpy()
    apart = np.abs(sizes[:, None] - sizes[None]).mean()
    assert number("sparseness", values, _context()) == pytest.approx(apart / (2 * sizes.mean()))
    share = sizes / sizes.sum()
    entropy = -(share * np.log(share)).sum() / np.log(16)
    assert number("entropy", values, _context()) == pytest.approx(entropy)


@pytest.mark.parametrize("metric", ["sparseness", "entropy", "effective_complexity"])
@pytest.mark.parametrize("scale", [1e-6, 1000, -1])
def test_units_do_not_matter(metric: str, scale: float) -> None:
    values = torch.randn(1, 4, 4, dtype=torch.float64)
    once, again = (number(metric, factor * values, _context()) for factor in (1, scale))
    assert once == pytest.approx(again, abs=1e-12)


@pytest.mark.parametrize(
    ("rank", "spacing", "size", "unit"),
    [(3, (5, 4, 2), 0.04, "mL"), (2, (5, 4), 0.2, "cm²"), (3, None, 1, "voxels")],
)
def test_volumes_are_physical(rank: int, spacing: object, size: float, unit: str) -> None:
    values = torch.zeros(1, *(4,) * rank)
    values.view(-1)[:9], values.view(-1)[-1] = 1, 1e-3
    context = _context(rank, spacing)
    result = value("effective_volume", MapField("m", values), context)
    assert result.value == pytest.approx(9 * size)
    assert result.facts["unit"] == unit


def test_the_table_says_the_unit_of_each_image() -> None:
    image = bright(2, 1, 4)
    for spacing, unit in (((2, 2), "cm²"), (None, "voxels")):
        scan = Image.from_array(image, spacing)
        scores = evaluate(
            LinearClasses((1, 4, 4)), scan, {"m": _one()}, ["effective_volume"], CLASS_ONE
        )
        assert {row.unit for row in scores} == {unit}


def test_places_are_counted_above_their_smallest_size() -> None:
    values = torch.zeros(1, 4, 4)
    values[0, 0, 0], values[0, 1, 1] = 1, 1  # touch at a corner
    values[0, 3, 3] = 1
    assert number("components", values, _context()) == 2
    spaced = _context(2, (4, 4))  # 0.16 cm² each
    assert number("components", values, spaced, smallest=0.2) == 1
    assert value("components", MapField("m", values), spaced, smallest=0.2).facts == {"all": 2}


def test_shares_of_channels_add_up() -> None:
    values = torch.zeros(2, 4, 4)
    values[0, 0, 0], values[1, 1, 1] = -3, 1
    result = value("channel_share", MapField("m", values), _context(channels=2))
    assert result.value == 0.75
    assert result.facts == {"channel 0": 0.75, "channel 1": 0.25}
    assert "one channel for each channel" in reason(
        "channel_share", MapField("m", values[:1]), _context(channels=2)
    )


def test_without_a_physical_size_every_place_counts() -> None:
    values = torch.zeros(1, 4, 4)
    values[0, 0, 0], values[0, 3, 3] = 1, 1
    for smallest in (0.0, 0.1, 5.0):
        assert number("components", values, _context(), smallest=smallest) == 2
    spaced = _context(2, (5, 4))  # 0.2 cm² each
    assert number("components", values, spaced, smallest=0.2) == 2
    assert number("components", values, spaced, smallest=0.201) == 0
