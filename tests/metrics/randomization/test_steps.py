"""Steps of a cascade: which maps are kept, compared and averaged."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from metric_cases import LinearClasses, metric_context
from torch import Tensor

from voxplain.image import Grid, Image
from voxplain.metrics import MapField
from voxplain.metrics.randomization import ParameterRandomization, Similarity, Steps, similarity
from voxplain.metrics.randomization.cascade_record import _aspect
from voxplain.metrics.randomization.steps import StepCollector

NAN = math.nan


def maps(count: int) -> list[Tensor]:
    draws = torch.Generator().manual_seed(0)
    return list(torch.rand(count, 9, 11, generator=draws, dtype=torch.float64))


def test_pictures_are_of_the_first_seed_and_chance_is_between_the_last_maps() -> None:
    trained, *others = maps(7)
    collector = StepCollector(trained, {"gini": 0.5}, pictures=True)
    for number, values in enumerate(others):
        collector.add(number // 2, values, {"gini": 0.1 * number} if number != 3 else {})
    steps = collector.steps([("head",), ("conv",)], fully_random=True)
    assert steps.stages == ((), ("head",), ("conv",))
    assert len(steps.pictures) == 3
    for picture, values in zip(steps.pictures, (trained, *others[:2]), strict=True):
        assert torch.equal(picture, values)
    for seed, curve in enumerate(steps.curves):
        assert curve[0] == Similarity(1.0, 1.0, 1.0, 1.0)
        assert curve[1:] == tuple(similarity(trained, m) for m in others[2 * seed : 2 * seed + 2])
    last = others[1::2]
    pairs = [(last[0], last[1]), (last[0], last[2]), (last[1], last[2])]
    assert steps.chance == tuple(similarity(*pair) for pair in pairs)
    np.testing.assert_allclose(
        steps.scores["gini"], [[0.5, 0, 0.1], [0.5, 0.2, NAN], [0.5, 0.4, 0.5]]
    )
    assert collector.steps([("head",), ("conv",)], fully_random=False).chance == ()
    assert StepCollector(trained).steps([], fully_random=True).pictures == ()


@pytest.mark.parametrize(
    ("curves", "mean"),
    [
        ([[1, 0.5, 0.25]], (0.75 + 0.375) / 2),
        ([[1, 0.5, NAN]], 0.75),
        ([[1, NAN, 0.5]], 0.75),
        ([[1, 0.5, NAN, NAN], [1, 0.25, NAN, NAN]], (1 + 0.375) / 2),
        ([[1, 0.5, NAN], [1, NAN, 0.25]], (0.75 + 0.375) / 2),
    ],
)
def test_the_value_is_the_mean_of_the_curve_where_it_is_defined(
    curves: list[list[float]], mean: float
) -> None:
    rows = tuple(tuple(Similarity(y, -y, 0.0, 0.0) for y in curve) for curve in curves)
    steps = Steps(tuple(() for _ in curves[0]), rows)
    context: Any = SimpleNamespace(engine=None, run_query=lambda _: {"m": steps})
    field = MapField("m", torch.rand(1, 4, 4))
    result = ParameterRandomization().score(field, context)
    assert result.value == pytest.approx(mean)
    other = ParameterRandomization(similarity="spearman_absolute").score(field, context)
    assert other.value == pytest.approx(-mean)


@pytest.mark.parametrize("rank", [2, 3])
def test_pixels_of_a_strip_are_as_high_and_wide_as_those_of_the_image(rank: int) -> None:
    """The axial plane of a volume: its second axis is up, and the first runs to the side."""
    values = torch.rand(1, *(5, 7, 4)[:rank], dtype=torch.float64)
    network = LinearClasses(tuple(values.shape))
    if rank == 2:
        picture = Image.from_array(values, spacing=(2.0, 0.5))
        assert _aspect(metric_context(network, picture)) == pytest.approx(4.0)
        return
    volume = Image(values, Grid((5, 7, 4), np.diag([2.0, 0.5, 3.0, 1.0])))
    assert _aspect(metric_context(network, volume)) == pytest.approx(0.25)
    turned = Image(values, Grid((5, 7, 4), np.diag([2.0, 0.5, 3.0, 1.0])[[1, 0, 2, 3]]))
    assert _aspect(metric_context(network, turned)) == pytest.approx(4.0)
