"""Continuity: maps that move with the image keep their region scores, others by hand."""

from __future__ import annotations

import pytest
import torch
from metric_cases import BLOCKS, LinearClasses, bright, explained, metric_context, reason, value
from networks import convolution
from torch import Tensor, nn

from voxplain.attribution.describe.card import PICTURE, VOLUME, reference_context
from voxplain.engine.variants.perturbations import Shift
from voxplain.metrics.curves import correlation
from voxplain.metrics.families.continuity import Translations
from voxplain.regions import parse_regions

METRIC = "continuity"
every_rank = pytest.mark.parametrize("rank", [2, 3])


class Wandering(nn.Module):
    """Scores that do not depend on the place: convolutions on a torus, summed."""

    def __init__(self, rank: int, dense: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        conv, around = convolution(rank), {"padding": 1, "padding_mode": "circular"}
        self.layers = nn.Sequential(conv(1, 4, 3, **around), nn.Tanh(), conv(4, 3, 3, **around))
        self.dense = dense

    def forward(self, image: Tensor) -> Tensor:
        output = self.layers(image)
        return output if self.dense else output.flatten(2).sum(dim=2)


def _blob(rank: int, size: int = 14) -> Tensor:
    """An object in the middle of nothing, ``(1, *spatial)``."""
    image = torch.zeros(1, *(size,) * rank, dtype=torch.float64)
    image[(0, *(slice(5, 9),) * rank)] = bright(rank, 1, 4)[0]
    return image


@every_rank
@pytest.mark.parametrize("dense", [False, True])
def test_gradients_of_a_network_without_places_move_along(rank: int, dense: bool) -> None:
    """For dense outputs the weights have to move along as well: a voxel of the object."""
    network, image = Wandering(rank, dense).double(), _blob(rank)
    target = {"kind": "region", "label": 1, "voxel": (7,) * rank}
    target = target if dense else {"kind": "class_score", "label": 1}
    context = explained(network, image, "saliency", "input_x_gradient", target=target)
    for field in context.fields.values():
        result = value(METRIC, field, context, regions=BLOCKS, shifts=(0.05, 0.2))
        assert result.value == pytest.approx(0, abs=1e-9)
        assert len(result.facts) == 2 * rank  # one and three voxels


@every_rank
def test_a_map_that_does_not_move_by_hand(rank: int) -> None:
    """The gradient of a linear score is the same wherever the image is."""
    image = bright(rank, 2, 6)
    network = LinearClasses(tuple(image.shape))
    context = explained(network, image, "saliency")
    result = value(METRIC, context.fields["saliency"], context, regions=BLOCKS, shifts=(0.3,))
    weight = network.weight.detach()[1].sum(dim=0)
    by_hand = []
    for axis in range(rank):
        before, after = weight.narrow(axis, 0, 4), weight.narrow(axis, 2, 4)
        by_hand.append(1 - correlation(_blocks(before), _blocks(after)))
    assert all(change > 0.1 for change in by_hand)
    assert result.value == pytest.approx(sum(by_hand) / rank, rel=1e-9)


def _blocks(values: Tensor) -> Tensor:
    """Sums over blocks of two voxels per axis; those of 6 voxels that lost 2 have one sum 0."""
    full = torch.zeros((6,) * values.ndim, dtype=values.dtype)
    full[tuple(slice(0, side) for side in values.shape)] = values
    for axis in range(values.ndim):
        full = full.unfold(axis, 2, 2).sum(dim=-1)
    return full


def test_every_axis_moves_by_at_least_a_voxel() -> None:
    moves = Translations((0.01, 0.02, 0.04), parse_regions(BLOCKS))
    assert list(moves._shifts((100, 50))) == [
        *((0, 0, voxels) for voxels in (1, 2, 4)),
        *((1, 1, voxels) for voxels in (1, 2)),
    ]
    assert list(moves._shifts((1, 10, 10))) == [(0, 1, 1), (1, 2, 1)]
    image = bright(3, 1, 8)[:, :1]
    for draw, axis, voxels in moves._shifts((1, 8, 8)):
        changed = Shift(voxels).changed(image, "", draw)
        stays = 8 - voxels
        assert torch.equal(
            changed.narrow(axis + 1, voxels, stays), image.narrow(axis + 1, 0, stays)
        )
    assert [moves.cost(reference_context(shape)) for shape in (PICTURE, VOLUME)] == [6, 9]


def test_missing_inputs_are_named() -> None:
    network, image = LinearClasses((1, 6, 6)), bright()
    context = metric_context(network, image, {"given": torch.randn(1, 6, 6)})
    assert "this map has no method" in reason(METRIC, context.fields["given"], context)
    context = explained(network, image, "saliency")
    single_region = {"kind": "blocks", "size": 6}
    assert "same sum" in reason(METRIC, context.fields["saliency"], context, regions=single_region)
