"""Where outputs lie: closed forms per axis, and networks whose geometry is known by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from voxplain.models.model import Model
from voxplain.models.output_place import OutputPlace, covered_ends


@pytest.mark.parametrize(
    ("start", "stride", "cells", "voxels", "covered"),
    [
        (0, 1, 7, 7, (0, 7)),  # the image
        (2, 1, 12, 16, (2, 14)),  # two valid convolutions
        (1.5, 1, 5, 8, (1, 6)),  # an even kernel: a cell half way counts as the voxel before
        (0.5, 2, 4, 8, (0, 8)),  # pooling
        (0, 2, 4, 8, (0, 8)),  # a padded strided convolution: no whole cell is missing at the end
        (1, 2, 3, 8, (0, 6)),  # a valid strided one: the cell at 7 is missing
        (4, 2, 4, 16, (3, 11)),
        (11, -2, 4, 16, (4, 12)),  # a flip
    ],
)
def test_covered_voxels(
    start: float, stride: float, cells: int, voxels: int, covered: tuple[int, int]
) -> None:
    assert covered_ends(start, stride, cells, voxels) == covered


@pytest.mark.parametrize(
    ("network", "place"),
    [
        (nn.Conv2d(1, 2, 3, padding=1), OutputPlace.same((11, 9))),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, (3, 1))),
            OutputPlace((2, 1), (1, 1), (7, 7), (11, 9)),
        ),
        (nn.Conv2d(1, 2, 3, 2, 1), OutputPlace((0, 0), (2, 2), (6, 5), (11, 9))),
        (nn.AvgPool2d(2), OutputPlace((0.5, 0.5), (2, 2), (5, 4), (11, 9))),
        (nn.AdaptiveAvgPool2d(1), None),
        (nn.Sequential(nn.Flatten(), nn.Linear(99, 2)), None),
    ],
)
def test_places_of_networks(network: nn.Module, place: OutputPlace | None) -> None:
    found = Model(network).place(torch.randn(1, 1, 11, 9))
    if place is None:
        assert found is None or found.cells == (1, 1)
    else:
        assert found == place
        assert Model(network, head=None).place(torch.randn(1, 1, 11, 9)) == place


def test_the_place_is_that_of_the_head() -> None:
    class Two(nn.Module):
        def forward(self, image: Tensor) -> Any:
            return {"coarse": image[..., ::2, ::2], "inner": image[..., 3:-1, 2:]}

    image = torch.randn(1, 1, 11, 9)
    inner = Model(Two(), head="inner").place(image)
    assert inner == OutputPlace((3, 2), (1, 1), (7, 7), (11, 9))
    assert inner.margins == ((3, 1), (2, 0))
    cut = Model(Two(), head=lambda out: out["coarse"][..., 1:, :]).place(image)
    assert cut == OutputPlace((2, 0), (2, 2), (5, 5), (11, 9))
    assert cut.margins == ((1, 0), (0, 0))  # nine columns are four cells and a half
    assert cut.middles == ((2, 4, 6, 8, 10), (1, 3, 5, 7, 8))


@pytest.mark.parametrize("rank", [2, 3])
def test_values_go_to_the_image_and_back(rank: int) -> None:
    place = OutputPlace((2.0, 0.5, 1.5)[:rank], (1.0, 2.0, 1.0)[:rank], (5, 4, 3)[:rank],
                        (9, 8, 6)[:rank])  # fmt: skip
    values = torch.randn(2, *place.cells)
    fine = place.on_image(values, outside=-9)
    assert fine.shape == (2, *place.image)
    expected = values.repeat_interleave(2, dim=2)
    inside = (slice(None), slice(2, 7), slice(0, 8), slice(1, 4))[: rank + 1]
    assert torch.equal(fine[inside], expected)
    fine[inside] = -9
    assert (fine == -9).all()
    assert torch.equal(place.on_output(place.on_image(values)), values)
    assert torch.allclose(place.mean_on_output(place.on_image(values)), values)
    noise = torch.randn(1, *place.image)
    pairs = (noise[inside][:, :, 0::2] + noise[inside][:, :, 1::2]) / 2
    assert torch.allclose(place.mean_on_output(noise), pairs)
    assert place.voxels_per_cell == 2
    assert not place.covers_all
    assert place.in_words().startswith("voxels 2 to 6 of 9, 0 to 7 of 8")


def test_the_mean_of_a_cell_is_over_its_own_voxels() -> None:
    """Cells at 0, 2, 4 and 6 of 8 voxels are nearest to 1, 2, 2 and 3 of them."""
    place = OutputPlace((0.0, 1.0), (2.0, 1.0), (4, 1), (8, 3))
    ramp = torch.arange(8.0)[:, None].expand(8, 3)
    expected = torch.tensor([0.0, 1.5, 3.5, 6.0])[:, None]
    torch.testing.assert_close(place.mean_on_output(ramp), expected)
