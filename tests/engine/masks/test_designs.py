"""Designs of coalitions: their rows, how often each occurs, and their random draws."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch

from voxplain.engine.masks.coalition_designs import (
    AllCoalitions,
    Bernoulli,
    ShapleyKernel,
    Walks,
    every_coalition,
)
from voxplain.engine.masks.quasi_random_designs import PickFreeze, QuasiLevels, QuasiSwitches
from voxplain.errors import ConfigError
from voxplain.regions import Blocks

REGIONS = Blocks(size=1)
ALL = [
    AllCoalitions(REGIONS),
    Bernoulli(REGIONS, 100),
    ShapleyKernel(REGIONS, 100),
    Walks(REGIONS, 5),
    PickFreeze(REGIONS, 6),
    QuasiSwitches(REGIONS, 20),
    QuasiLevels(REGIONS, 20),
]


@pytest.mark.parametrize("sampler", ALL, ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize("count", [1, 2, 3, 11])
def test_designs_have_the_stated_rows_and_depend_on_the_key_alone(
    sampler: object, count: int
) -> None:
    design = sampler.design(count, "key")
    distinct = len(torch.unique(design, dim=0))
    stated = sampler.rows(count)
    assert len(design) == stated or distinct == stated < len(design)
    assert design.shape[1] == count
    assert float(design.min()) >= 0
    assert float(design.max()) <= 1
    assert torch.equal(design, sampler.design(count, "key"))
    few = isinstance(sampler, AllCoalitions) or count < 11
    assert torch.equal(design, sampler.design(count, "other")) is False or few


def test_every_coalition_is_numbered_by_its_bits() -> None:
    result = {tuple(row) for row in every_coalition(4).int().tolist()}
    assert result == set(itertools.product((0, 1), repeat=4))
    for number, row in enumerate(every_coalition(5).int().tolist()):
        assert sum(kept << region for region, kept in enumerate(row)) == number


def test_too_many_regions_for_all_coalitions() -> None:
    with pytest.raises(ConfigError, match=r"13 regions need 2\^13 .*at most 12 regions"):
        AllCoalitions(REGIONS).design(13, "key")
    with pytest.raises(ConfigError, match="shapley_value_sampling"):
        AllCoalitions(REGIONS).rows(100)


def test_bernoulli_designs_keep_each_region_half_of_the_time() -> None:
    design = Bernoulli(REGIONS, 4000).design(30, "key")
    error = 0.5 / math.sqrt(4000)
    assert float((design.mean(dim=0) - 0.5).abs().max()) < 4 * error
    both = design.T @ design / 4000 - torch.eye(30) * 0.25
    assert float((both - 0.25).abs().max()) < 5 * 0.44 / math.sqrt(4000)


def test_samples_follow_the_number_of_regions() -> None:
    assert Bernoulli(REGIONS).rows(100) == 800
    assert Bernoulli(REGIONS).rows(40) == 512
    assert ShapleyKernel(REGIONS).rows(100) == 512 + 200 + 1
    assert QuasiLevels(REGIONS).rows(100) == 1201
    assert Walks(REGIONS).rows(64) == 25 * 63 + 1
    assert PickFreeze(REGIONS).rows(64) == 32 * 66


def test_with_few_regions_every_coalition_occurs_equally_often() -> None:
    design = Bernoulli(REGIONS, 600).design(5, "key")
    assert set(Counter(map(tuple, design.tolist())).values()) == {600 // 32}
    design = ShapleyKernel(REGIONS, 30).design(5, "key")
    assert sorted(map(tuple, design.tolist())) == sorted(itertools.product((0, 1), repeat=5))[:-1]


def test_sizes_follow_the_shapley_kernel_and_complements_come_in_pairs() -> None:
    count, samples = 8, 20_000
    design = ShapleyKernel(REGIONS, samples).design(count, "key")  # 2^8 - 2 < samples
    assert len(design) == 2**count - 1
    count = 16
    design = ShapleyKernel(REGIONS, samples).design(count, "key")
    assert not design[0].any()
    pairs = design[1:].view(-1, 2, count)
    assert bool((pairs.sum(dim=1) == 1).all())
    sizes = design[1:].sum(dim=1).long()
    likely = torch.tensor([0.0] + [1 / (k * (count - k)) for k in range(1, count)])
    shares = torch.bincount(sizes, minlength=count) / samples
    error = (likely / likely.sum() / (samples / 2)).sqrt()
    assert bool(((shares - likely / likely.sum()).abs() <= 4.5 * error + 1e-9).all())
    kept = design[1:].mean(dim=0)
    assert float((kept - 0.5).abs().max()) < 1e-6  # of a pair, every region is in one


def test_walks_grow_by_one_region_and_come_with_their_reversal() -> None:
    sampler = Walks(REGIONS, 7)
    design, orders = sampler.design(6, "key"), sampler.orders(6, "key")
    assert not design[0].any()
    steps = design[1:].view(7, 5, 6)
    for walk, order in zip(steps, orders.tolist(), strict=True):
        for size, row in enumerate(walk, start=1):
            assert set(row.nonzero().flatten().tolist()) == set(order[:size])
    assert torch.equal(orders[1:6:2], orders[0:6:2].flip(1))
    assert len({tuple(order) for order in orders.tolist()}) == 7


def test_few_regions_get_every_walk() -> None:
    orders = Walks(REGIONS, 25).orders(4, "key").tolist()
    assert sorted(orders) == [list(order) for order in itertools.permutations(range(4))]


def test_pick_freeze_changes_one_column_at_a_time() -> None:
    count, samples = 5, 8
    design = PickFreeze(REGIONS, samples).design(count, "key")
    first, second = design[:samples], design[samples : 2 * samples]
    mixed = design[2 * samples :].view(count, samples, count)
    for region in range(count):
        others = [other for other in range(count) if other != region]
        assert torch.equal(mixed[region][:, others], first[:, others])
        assert torch.equal(mixed[region][:, region], second[:, region])
    # Low discrepancy: every eighth of [0, 1) holds one point per axis.
    cells = (torch.cat([first, second], dim=1) * samples).long().sort(dim=0).values
    assert torch.equal(cells, torch.arange(samples)[:, None].expand(-1, 2 * count))


def test_switches_and_levels_are_balanced() -> None:
    kept = QuasiSwitches(REGIONS, 64).design(40, "key")
    assert torch.equal(kept.mean(dim=0), torch.full((40,), 0.5))
    levels = QuasiLevels(REGIONS, 64, levels=4).design(40, "key")
    assert not levels[0].any()
    for level in range(4):
        shares = ((levels[1:] * 3).round() == level).float().mean(dim=0)
        assert torch.equal(shares, torch.full((40,), 0.25))


def test_too_many_regions_for_a_sobol_sequence() -> None:
    with pytest.raises(ConfigError, match="fewer regions"):
        PickFreeze(REGIONS, 4).design(11_000, "key")
