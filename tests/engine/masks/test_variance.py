"""Sobol indices with a closed form, and HSIC against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from players import played
from torch import Tensor

from voxplain.attribution import Attribution, explain
from voxplain.engine.masks import Coalitions
from voxplain.engine.masks.coalition_designs import every_coalition
from voxplain.engine.masks.quasi_random_designs import PickFreeze
from voxplain.engine.masks.reducers.sensitivity import Dependence, VarianceShare
from voxplain.regions import Blocks, RegionMap


def ishigami(kept: Tensor) -> Tensor:
    """sin x1 + 7 sin^2 x2 + 0.1 x3^4 sin x1, x uniform in [-pi, pi]."""
    x = math.pi * (2 * kept - 1)
    return x[:, 0].sin() + 7 * x[:, 1].sin() ** 2 + 0.1 * x[:, 2] ** 4 * x[:, 0].sin()


def _ishigami_indices() -> tuple[list[float], list[float]]:
    """First-order and total, from the integrals."""
    a, b, pi = 7, 0.1, math.pi
    alone = [(1 + b * pi**4 / 5) ** 2 / 2, a**2 / 8, 0.0]
    together = 8 * b**2 * pi**8 / 225
    variance = sum(alone) + together
    total = [alone[0] + together, alone[1], together]
    return [share / variance for share in alone], [share / variance for share in total]


FIRST, TOTAL = _ishigami_indices()


def _column(result: Attribution, name: str) -> list[float]:
    """A column of the list of regions, in the order of the players."""
    listed = {region["name"]: region[name] for region in result.stats.findings[0]["regions"]}
    return [listed[f"region {number + 1}"] for number in range(len(listed))]


def test_the_known_indices() -> None:
    assert pytest.approx([0.5576, 0.4424, 0.2437], abs=1e-4) == TOTAL
    assert pytest.approx([0.3139, 0.4424, 0.0], abs=1e-4) == FIRST


@pytest.mark.parametrize("seed", [0, 1])
def test_sobol_indices_of_the_ishigami_function(seed: int) -> None:
    result = played(ishigami, 3, {"name": "sobol_attribution", "samples": 1024}, seed)
    assert result.map.flatten().tolist() == pytest.approx(TOTAL, abs=0.02)
    assert _column(result, "first_order") == pytest.approx(FIRST, abs=0.04)
    assert result.stats.findings[0]["variance"] == pytest.approx(13.845, rel=0.02)


def test_indices_of_a_linear_score_are_shares_of_squares() -> None:
    weights = torch.tensor([1.0, -2, 0, 3, 0.5], dtype=torch.float64)
    worth = lambda kept: kept @ weights + 100  # noqa: E731
    expected = (weights**2 / (weights**2).sum()).tolist()
    result = played(worth, 5, {"name": "sobol_attribution", "samples": 512})
    assert result.map.flatten().tolist() == pytest.approx(expected, abs=0.015)
    assert float(result.map.flatten()[2]) == 0
    assert _column(result, "first_order") == pytest.approx(expected, abs=0.03)


def test_jansen_s_estimators_written_out() -> None:
    design = PickFreeze(Blocks(), 8).design(4, "key")
    scores = design.double().pow(2) @ torch.tensor([1.0, 2, 3, 4]).double() + design[:, 0] * 3
    masks = Coalitions(RegionMap(torch.arange(4).view(2, 2)), design, (2, 2))
    result = VarianceShare().reduce(masks, scores, full_score=0.0).map.flatten()
    first = scores[:8].tolist()
    both = scores[:16]
    variance = float(((both - both.mean()) ** 2).mean())
    for region in range(4):
        mixed = scores[16 + 8 * region : 24 + 8 * region].tolist()
        expected = sum((a - b) ** 2 for a, b in zip(first, mixed, strict=True)) / 8 / 2 / variance
        assert float(result[region]) == pytest.approx(expected)


def test_defaults_follow_the_dimension() -> None:
    """Blocks of an eighth in 2-D, also in a volume of one slice; supervoxels in 3-D."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(2)).eval()
    flat = torch.rand(1, 1, 16, 24, generator=torch.Generator().manual_seed(0))
    network(flat)
    for name in ("sobol_attribution", "hsic_attribution"):
        method = {"name": name, "samples": 4}
        result = explain(network, flat, method, 0)[name]
        volume = explain(network, flat[:, :, None], method, 0)[name]
        torch.testing.assert_close(volume.map[:, :, 0], result.map)
        assert len(result.stats.findings[0]["regions"]) == 64
        corners = result.map[0, 0, ::2, ::3]
        torch.testing.assert_close(
            corners.repeat_interleave(2, 0).repeat_interleave(3, 1), result.map[0, 0]
        )


def _direct_hsic(kept: Tensor, scores: Tensor, bandwidth: float) -> float:
    """1/n^2 sum K L + 1/n^4 sum K sum L - 2/n^3 sum_ijk K_ij L_ik, term by term."""
    n = len(scores)
    same = [[float(a == b) for b in kept.tolist()] for a in kept.tolist()]
    near = [
        [math.exp(-((a - b) ** 2) / (2 * bandwidth**2)) for b in scores.tolist()]
        for a in scores.tolist()
    ]
    rows = range(n)
    together = sum(same[i][j] * near[i][j] for i in rows for j in rows) / n**2
    means = sum(map(sum, same)) * sum(map(sum, near)) / n**4
    across = sum(sum(same[i]) * sum(near[i]) for i in rows) / n**3
    return together + means - 2 * across


def test_hsic_is_its_definition() -> None:
    source = torch.Generator().manual_seed(0)
    design = (torch.rand(24, 3, generator=source) < 0.4).float()
    scores = design[:, 0].double() * 2 + torch.randn(24, generator=source).double()
    masks = Coalitions(RegionMap(torch.tensor([[0, 1, 2]])), design, (1, 3))
    result = Dependence().reduce(masks, scores, full_score=0.0)
    distances = [abs(a - b) for a in scores.tolist() for b in scores.tolist() if a != b]
    median = sorted(distances)[(len(distances) - 1) // 2]
    assert result.findings["bandwidth"] == pytest.approx(median)
    expected = [_direct_hsic(column, scores, median) for column in design.T]
    assert result.map.flatten().tolist() == pytest.approx(expected, abs=1e-12)


def test_the_level_of_chance_is_the_mean_over_shuffles() -> None:
    source = torch.Generator().manual_seed(1)
    design = (torch.rand(40, 2, generator=source) < 0.3).float()
    scores = torch.randn(40, generator=source).double()
    masks = Coalitions(RegionMap(torch.tensor([[0, 1]])), design, (1, 2))
    listed = Dependence().reduce(masks, scores, 0.0).findings["regions"]
    by_chance = {region["name"]: region["by_chance"] for region in listed}
    shuffled = torch.stack(
        [
            Dependence().reduce(masks, scores[torch.randperm(40, generator=source)], 0.0).map
            for _ in range(800)
        ]
    ).flatten(1)
    for number, mean in enumerate(shuffled.mean(dim=0).tolist()):
        assert by_chance[f"region {number + 1}"] == pytest.approx(mean, rel=0.08)


def test_hsic_ranks_what_is_irrelevant_last_and_sees_what_is_not_linear() -> None:
    """Regions 4 and 6 do nothing; 2 and 3 matter only together."""

    def worth(kept: Tensor) -> Tensor:
        switched = (2 * kept[:, 1] - 1) * (2 * kept[:, 2] - 1)
        return 3 * kept[:, 0] + switched + 0.8 * kept[:, 4]

    attribution = played(worth, 6, {"name": "hsic_attribution"})
    result, chance = attribution.map.flatten().tolist(), _column(attribution, "by_chance")
    assert result.index(max(result)) == 0
    assert max(result[3], result[5]) < 0.05 * result[4]
    assert result[4] > 5 * chance[4]
    assert max(result[3], result[5]) < chance[3]
    assert min(result) >= 0


def test_a_score_that_never_changes_depends_on_nothing() -> None:
    masks = Coalitions(RegionMap(torch.arange(3)[None]), every_coalition(3), (1, 3))
    level = torch.full((8,), 2.0, dtype=torch.float64)
    assert not Dependence().reduce(masks, level, 2.0).map.any()
