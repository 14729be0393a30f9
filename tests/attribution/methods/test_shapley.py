"""Shapley values of games in closed form, their axioms, and their standard errors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from players import Game, played, values
from torch import Tensor

from voxplain.attribution import explain
from voxplain.engine.masks.reducers.shapley import shapley_values, standard_errors
from voxplain.errors import ConfigError

WEIGHTS = torch.tensor([3.0, -1.0, 0.5, 2.0, 0.0, 1.0], dtype=torch.float64)


def additive(kept: Tensor) -> Tensor:
    return kept @ WEIGHTS[: kept.shape[1]]


def unanimity(kept: Tensor) -> Tensor:
    """1 where players 0, 2 and 3 are all there: a third each."""
    return kept[:, [0, 2, 3]].prod(dim=1)


def majority(kept: Tensor) -> Tensor:
    """Weighted voting with votes 3, 2, 2, 1 and quota 5: powers 5, 3, 3 and 1 of 12."""
    votes = torch.tensor([3.0, 2, 2, 1], dtype=torch.float64)
    return (kept @ votes >= 5).double()


def gloves(kept: Tensor) -> Tensor:
    """One left glove, two right ones; a pair is worth 1: 2/3, 1/6, 1/6."""
    return torch.minimum(kept[:, 0], kept[:, 1:3].sum(dim=1))


def runway(kept: Tensor) -> Tensor:
    """The largest need (airport game): each part of the runway is shared by its users."""
    needs = torch.tensor([1.0, 2, 4, 4, 7], dtype=torch.float64)
    return (kept * needs).amax(dim=1)


RUNWAY = [1 / 5, 1 / 5 + 1 / 4, 1 / 5 + 1 / 4 + 2 / 3, 1 / 5 + 1 / 4 + 2 / 3]
GAMES: dict[str, tuple[Callable[[Tensor], Tensor], list[float]]] = {
    "additive": (additive, WEIGHTS.tolist()),
    "unanimity": (unanimity, [1 / 3, 0, 1 / 3, 1 / 3, 0]),
    "majority": (majority, [5 / 12, 3 / 12, 3 / 12, 1 / 12]),
    "gloves": (gloves, [2 / 3, 1 / 6, 1 / 6]),
    "runway": (runway, [*RUNWAY, RUNWAY[-1] + 3]),
}
every_game = pytest.mark.parametrize("game", GAMES)


@every_game
@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("method", ["shapley_exact", "kernel_shap"])
def test_closed_forms(game: str, rank: int, method: str) -> None:
    worth, expected = GAMES[game]
    actual = values(worth, len(expected), method, rank=rank)
    assert actual == pytest.approx(expected, abs=1e-9)


@every_game
def test_all_walks_are_exact(game: str) -> None:
    worth, expected = GAMES[game]
    actual = played(
        worth, len(expected), {"name": "shapley_value_sampling", "samples": math.factorial(6)}
    )
    assert actual.map.flatten().tolist() == pytest.approx(expected, abs=1e-9)
    assert actual.stats.findings[0]["largest_standard_error"] == 0


@every_game
@pytest.mark.parametrize("method", ["shapley_exact", "kernel_shap", "shapley_value_sampling"])
def test_efficiency_is_exact(game: str, method: str) -> None:
    worth, expected = GAMES[game]
    actual = played(worth, len(expected), {"name": method})
    assert actual.stats.completeness == pytest.approx((0.0,), abs=1e-12)
    ends = torch.stack([torch.ones(len(expected)), torch.zeros(len(expected))]).double()
    everybody, nobody = worth(ends).tolist()
    assert float(actual.map.double().sum()) == pytest.approx(everybody - nobody, abs=1e-6)
    assert actual.stats.baseline_scores == pytest.approx((nobody,))


def rough(kept: Tensor) -> Tensor:
    """Ten players: 1 and 2 alike, 5 a dummy worth 0.7, 9 without any effect."""
    pairs = kept[:, 1] * kept[:, 3] + kept[:, 2] * kept[:, 3] - 2 * kept[:, 0] * kept[:, 4]
    deep = 3 * kept[:, [6, 7, 8, 3]].prod(dim=1) - kept[:, 1] * kept[:, 2] * kept[:, 7]
    return pairs + deep + 0.7 * kept[:, 5] + torch.relu(kept[:, [0, 6, 7]].sum(dim=1) - 1.5)


@pytest.mark.parametrize(
    "method",
    [
        {"name": "shapley_exact"},
        {"name": "kernel_shap", "samples": 2000},
        {"name": "shapley_value_sampling", "samples": 40},
    ],
    ids=lambda method: method["name"],
)
def test_dummies_get_what_they_are_worth(method: dict[str, object]) -> None:
    actual = values(rough, 10, method)
    assert actual[9] == pytest.approx(0, abs=1e-9)
    assert actual[5] == pytest.approx(0.7, abs=1e-7)


def test_equals_get_equal_shares_and_games_add_up() -> None:
    actual = values(rough, 10, "shapley_exact")
    assert actual[1] == pytest.approx(actual[2], abs=1e-12)
    other = values(lambda kept: runway(kept[:, :5]), 10, "shapley_exact")
    both = values(lambda kept: 2 * rough(kept) - runway(kept[:, :5]), 10, "shapley_exact")
    expected = [2 * a - b for a, b in zip(actual, other, strict=True)]
    assert both == pytest.approx(expected, abs=1e-9)


def test_weights_are_those_of_the_definition() -> None:
    """Against the mean over all orders, written out."""
    game = torch.randn(32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.zeros(5, dtype=torch.float64)
    for order in itertools.permutations(range(5)):
        before = 0
        for region in order:
            after = before | 1 << region
            expected[region] += (game[after] - game[before]) / math.factorial(5)
            before = after
    torch.testing.assert_close(shapley_values(game), expected, rtol=1e-12, atol=1e-12)


def test_sampling_stays_within_its_standard_errors() -> None:
    """Over many seeds: unbiased, and the stated standard errors are those of the estimates."""
    exact = torch.tensor(values(rough, 10, "shapley_exact"))
    off, stated = [], []
    for seed in range(40):
        actual = played(rough, 10, {"name": "shapley_value_sampling", "samples": 25}, seed)
        off.append(actual.map.flatten() - exact)
        listed = {one["name"]: one["standard_error"] for one in actual.stats.findings[0]["regions"]}
        stated.append([listed[f"region {n + 1}"] for n in range(10)])
    errors, said = torch.stack(off), torch.tensor(stated)
    made = errors.square().mean(dim=0).sqrt()
    expected = said.square().mean(dim=0).sqrt()
    moving = exact.new_tensor([0, 1, 2, 3, 4, 6, 7, 8]).long()
    ratio = made[moving] / expected[moving]
    assert bool(((ratio > 0.7) & (ratio < 1.4)).all())
    assert float(errors.mean(dim=0).abs().div(made.clamp_min(1e-6)).max()) < 4 / math.sqrt(40)
    assert float(said[:, [5, 9]].max()) < 1e-9


def test_reversed_walks_have_less_error_than_their_number_says() -> None:
    """A game of pairs: a walk and its reversal together are exact, and stated as exact."""
    actual = played(
        lambda kept: kept[:, 0] * kept[:, 1] + kept[:, 2] * kept[:, 6],
        7,
        {"name": "shapley_value_sampling", "samples": 2},
    )
    assert actual.map.flatten().tolist() == pytest.approx([0.5, 0.5, 0.5, 0, 0, 0, 0.5])
    gains = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1], [1, 0]]).double().repeat(1, 10)
    pairs, single = 0.0, float(gains[:, 0].var())
    expected = math.sqrt(4 * 2 * pairs + single) / 5
    assert standard_errors(gains).tolist() == pytest.approx([expected] * 20)


def test_kernel_shap_finds_sampled_values_near_the_exact_ones() -> None:
    exact = torch.tensor(values(rough, 10, "shapley_exact"))
    spec = {"name": "kernel_shap", "samples": 400}
    errors = torch.stack([torch.tensor(values(rough, 10, spec, s)) - exact for s in range(30)])
    spread = errors.square().mean(dim=0).sqrt()
    assert 1e-3 < float(spread.max()) < 0.3  # or it was not sampled
    assert bool((errors.mean(dim=0).abs() <= 4 * spread / math.sqrt(30) + 1e-6).all())


def test_one_region_in_closed_form() -> None:
    for method in ("kernel_shap", "shapley_exact", "shapley_value_sampling"):
        actual = played(lambda kept: 5 * kept[:, 0] - 2, 1, method)
        assert actual.map.tolist() == [[[5.0]]]
        assert actual.stats.passes == 1


def test_every_coalition_runs_once_and_the_image_not_again() -> None:
    calls: list[int] = []

    def counted(kept: Tensor) -> Tensor:
        calls.append(len(kept))
        return kept.sum(dim=1)

    for method, forwards in (
        ({"name": "shapley_exact"}, 15),
        ({"name": "kernel_shap"}, 15),
        ({"name": "shapley_value_sampling", "samples": 24}, 15),
        ({"name": "shapley_value_sampling", "samples": 1}, 4),
        ({"name": "lime"}, 15),
    ):
        calls.clear()
        actual = played(counted, 4, method)
        look = 3  # at the image, alone and beside another one
        assert sum(calls) in (forwards + look, forwards + look + 1), method  # a lone one is doubled
        assert actual.stats.passes == forwards


def test_too_many_regions_are_refused_with_their_number() -> None:
    with pytest.raises(ConfigError, match=r"16 regions need 2\^16"):
        values(lambda kept: kept.sum(dim=1), 16, "shapley_exact")


def test_a_fill_that_changes_nothing_gives_nothing() -> None:
    image = torch.ones(1, 1, 2, 2)
    spec = {"regions": {"kind": "blocks", "size": 1}, "fill": 1.0}
    for name in ("shapley_exact", "kernel_shap", "shapley_value_sampling", "sobol_attribution"):
        attributions = explain(Game(lambda kept: kept.sum(dim=1)), image, {"name": name, **spec}, 0)
        assert not attributions[name].map.any()
