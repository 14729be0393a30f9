"""Chains of changes come back in reverse order, and say which voxels they still show."""

from __future__ import annotations

import pytest
import torch

from voxplain.engine.variants.chains import Chain, Flip
from voxplain.engine.variants.perturbations import Rotation, Shift

every_rank = pytest.mark.parametrize("rank", [2, 3])


def ramps(shape: tuple[int, ...]) -> torch.Tensor:
    """The coordinates as an image, which linear interpolation reproduces."""
    axes = [torch.arange(side, dtype=torch.float64) for side in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


@every_rank
def test_what_stays_in_view_comes_back_to_its_place(rank: int) -> None:
    shape = (24, 21, 6)[:rank]
    spacing = (1.0, 1.5, 1.0)[:rank]
    chain = Chain(((Flip((1,)), 0), (Rotation(12, spacing), 0), (Shift(3), 0), (Shift(-2), 1)))
    image = ramps(shape)
    back = chain.returned(chain.changed(image, "", 0), 0)
    seen = chain.in_view(image, 0)
    assert 0.3 < float(seen.double().mean()) < 0.9
    # voxels next to what left are interpolated with what repeats the border
    left = torch.nn.functional.pad((~seen)[None, None].double(), (2, 2) * rank, value=1)
    pooled = (torch.nn.functional.max_pool2d, torch.nn.functional.max_pool3d)[rank - 2]
    inner = pooled(left, 5, 1)[0, 0] == 0
    assert int(inner.sum()) > 50
    assert torch.allclose(back[:, inner], image[:, inner], atol=1e-9)
    assert float((back - image)[:, ~seen].abs().max()) > 1


@pytest.mark.parametrize("voxels", [-2, 0, 3])
def test_a_shift_shows_all_but_what_it_moves_out(voxels: int) -> None:
    seen = Shift(voxels).in_view(torch.zeros(1, 6, 5), 1)
    expected = torch.ones(6, 5, dtype=torch.bool)
    if voxels > 0:
        expected[:, -voxels:] = False
    elif voxels < 0:
        expected[:, :-voxels] = False
    assert torch.equal(seen, expected)


def test_no_rotation_shows_everything() -> None:
    assert bool(Rotation(0.0).in_view(torch.zeros(1, 6, 5), 0).all())
    assert not bool(Rotation(10.0).in_view(torch.zeros(1, 6, 5), 0)[0, 0])
