"""The gradient screen is exact where the network is linear, and places are all that fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from voxplain.concepts.errors.causes import Substitutes, single_units
from voxplain.concepts.errors.effects import effect_on, effects_of
from voxplain.concepts.errors.labeled_case import AskedClass, LabeledCase
from voxplain.concepts.errors.placements import Placements
from voxplain.concepts.errors.screen import estimated_drops, strongest
from voxplain.engine.cohort import CohortCase
from voxplain.engine.taps import Tap
from voxplain.grid import Grid
from voxplain.image import Image
from voxplain.models.model import Model


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("rank", [2, 3])
def test_estimates_are_exact_for_a_linear_network(rank: int, windows: bool) -> None:
    torch.manual_seed(0)
    kind = (nn.Conv2d, nn.Conv3d)[rank - 2]
    network = nn.Sequential(kind(1, 5, 3, padding=1), kind(5, 1, 3, padding=1)).double()
    window = {"size": [6] * rank, "overlap": 0.5} if windows else None
    shape = (9, 8, 7)[:rank]
    image = Image(torch.randn(1, *shape), Grid.default(shape, 1.0))
    one = CohortCase("a", "a", image, (torch.rand(shape) > 0.7).long())
    tap = Tap("0")
    case = LabeledCase(Model(network, window=window), one, AskedClass(1), (tap,))
    substitutes = Substitutes({tap: torch.randn(5, dtype=torch.float64)})
    for error in case.components(("fp", "fn"), 2):
        estimates = estimated_drops(case, error, (tap,), substitutes)[tap]
        exact = [
            effect_on(error, case, unit, unit.outcome(case)).drop
            for unit in single_units(tap, range(5), substitutes)
        ]
        assert estimates.tolist() == pytest.approx(exact, abs=1e-9)


def test_the_strongest_for_any_error_are_kept() -> None:
    first, second = torch.tensor([0.1, 3.0, 0.2, 0.0]), torch.tensor([-4.0, 0.0, 0.1, 0.3])
    assert strongest([first, second], 2) == (0, 1)


@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 3)])
def test_places_are_all_where_the_region_fits_and_means_are_those_over_it(
    shape: tuple[int, ...],
) -> None:
    torch.manual_seed(0)
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[2:4, 3] = mask[2, 4] = True
    if len(shape) == 3:
        mask[..., 1:] = False
    allowed = torch.rand(shape) > 0.15
    values = torch.randn(shape)
    places = Placements(mask, allowed)
    moved = places.drawn(10_000, torch.Generator().manual_seed(0))
    assert len(moved) == len(places) > 3
    for each in moved:
        assert int(each.sum()) == int(mask.sum())
        assert bool(allowed[each].all())
        assert not bool((each & mask).any())
    means = sorted(places.means(values).tolist())
    assert means == pytest.approx(sorted(float(values[each].mean()) for each in moved), abs=1e-6)
    here = means[-3]
    assert places.share_at_least(values, here) == pytest.approx(4 / (1 + len(moved)))
    assert Placements(mask, mask).share_at_least(values, 0.0) is None


@pytest.mark.parametrize("kind", ["fp", "fn"])
def test_what_falls_everywhere_alike_is_no_cause(kind: str) -> None:
    """The null looks at the same direction of the margin as the error does."""
    sign = 1.0 if kind == "fp" else -1.0
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1)).double()
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[[[1.0]]], [[[0.0]]]]))
        network[0].bias.copy_(torch.tensor([0.0, 1.0]))
        network[1].weight.copy_(torch.tensor([[[[1.0]], [[sign]]]]))
        network[1].bias.zero_()
    data = torch.full((1, 12, 12), -9.0) + 0.01 * torch.rand(1, 12, 12)
    data[0, 2:4, 2:4] = 0.5 if kind == "fp" else -9.0
    labels = torch.zeros(12, 12, dtype=torch.long)
    labels[2:4, 2:4] = kind == "fn"
    one = CohortCase("a", "a", Image(data, Grid.default((12, 12), 1.0)), labels)
    tap = Tap("0")
    case = LabeledCase(Model(network), one, AskedClass(1), (tap,))
    (error,) = case.components((kind,), 1)  # type: ignore[arg-type]
    units = single_units(tap, (1,), Substitutes({tap: torch.zeros(2, dtype=torch.float64)}))
    (effect,) = effects_of(case, [error], units, 9, 0)[error.id]
    assert effect.drop == pytest.approx(1)
    assert effect.draws > 50
    assert effect.p == 1
