"""The test of directions: its level where nothing is there, its power where something is."""

from __future__ import annotations

import math

import torch

from voxplain.concepts.directions.significance import compare_directions

SEEDS, RANDOM = 400, 59


def p_values(shift: float = 0.0) -> torch.Tensor:
    """Of the share and of the mean over many seeds; cases share a part of their gradient."""
    found = []
    for seed in range(SEEDS):
        source = torch.Generator().manual_seed(seed)
        common = torch.randn(6, generator=source)
        gradients = common + torch.randn(9, 6, generator=source)
        vectors = torch.randn(1 + RANDOM, 6, generator=source)
        vectors[0] += shift * common
        tested = compare_directions(gradients, vectors)
        found.append((tested.p_share, tested.p_mean))
    return torch.tensor(found)


def test_a_random_direction_is_significant_as_often_as_the_level_says() -> None:
    rejected = (p_values() <= 0.05).double().mean(dim=0)
    slack = 3 * math.sqrt(0.05 * 0.95 / SEEDS)
    assert float(rejected.max()) <= 0.05 + slack
    assert float(rejected[1]) >= 0.05 - slack  # the mean has no ties, so that its level is exact


def test_the_direction_of_the_gradient_is_significant() -> None:
    rejected = (p_values(shift=5.0) <= 0.05).double().mean(dim=0)
    assert float(rejected[1]) > 0.4


def test_the_opposite_direction_has_the_same_p_values() -> None:
    source = torch.Generator().manual_seed(1)
    gradients, vectors = torch.randn(7, 4, generator=source), torch.randn(60, 4, generator=source)
    one, other = (compare_directions(gradients, sign * vectors) for sign in (1, -1))
    assert math.isclose(one.p_mean, other.p_mean)
    assert math.isclose(one.share_positive, 1 - other.share_positive)
    assert math.isclose(one.mean, -other.mean)


def test_without_gradient_or_direction_nothing_is_said() -> None:
    some, none = torch.ones(3, 4), torch.zeros(3, 4)
    assert math.isnan(compare_directions(none, torch.ones(40, 4)).share_positive)
    assert math.isnan(compare_directions(some, torch.zeros(40, 4)).p_mean)
