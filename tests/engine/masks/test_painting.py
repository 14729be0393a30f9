"""Compact masks against dense ones: one weight per voxel, images written by torch.where."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from networks import assert_close, images
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.masks import Boxes, Coalitions, Masks, RandomGrids, SlidingBox
from voxplain.engine.masks.dense import DenseMasks, Grids
from voxplain.engine.stream_io import StreamInput
from voxplain.regions import RegionMap

every_rank = pytest.mark.parametrize("rank", [1, 2, 3])


def _context(shape: tuple[int, ...], spacing: tuple[float, ...] | None = None) -> Context:
    return cast(Context, SimpleNamespace(shape=shape, spacing=spacing))


def _stream_input(rank: int, size: int = 7) -> StreamInput:
    return StreamInput(images(rank, 2, 1, size)[0], 0, "key")


def _coalitions(rank: int, fades: bool, per_channel: bool = False) -> Coalitions:
    torch.manual_seed(rank)
    shape = (7,) * rank
    labels = torch.randint(-1, 6, (2, *shape) if per_channel else shape)
    labels.view(-1)[:6] = torch.arange(6)
    design = torch.rand(40, 6)
    design = design.where(design > 0.3, 0.0) if fades else (design > 0.5).float()
    design[3], design[7] = 1.0, design[2]
    return Coalitions(RegionMap(labels), design, shape)


def _boxes(rank: int) -> Masks:
    return SlidingBox(0.4, 2).masks(_stream_input(rank), _context((7,) * rank))


def _grids(rank: int) -> Masks:
    return RandomGrids(25, 3, 0.5).masks(_stream_input(rank), _context((7,) * rank))


MASKS = {
    "coalitions": lambda rank: _coalitions(rank, False),
    "fades": lambda rank: _coalitions(rank, True),
    "per channel": lambda rank: _coalitions(rank, False, True),
    "boxes": _boxes,
    "grids": _grids,
}


def _naive(masks: Masks, index: int, image: Tensor, filled: Tensor) -> Tensor:
    weights = masks.weights(index, image)
    blended = weights * image + (1 - weights) * filled
    return torch.where((weights == 1).expand_as(image), image, blended)


@every_rank
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_painted_is_blended_voxel_by_voxel(rank: int, kind: str, batch: int) -> None:
    """Rows of one buffer are overwritten by mask after mask, in any order."""
    masks, image = MASKS[kind](rank), _stream_input(rank).image
    filled = images(rank, 2, 2, 7)[1]
    painter = masks.painter(image, filled)
    order = torch.randperm(len(masks)).tolist() * 2
    for first in range(0, len(order), batch):
        indices = order[first : first + batch]
        painted = painter.painted(indices)
        for row, index in zip(painted, indices, strict=True):
            torch.testing.assert_close(row, _naive(masks, index, image, filled), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", MASKS)
def test_a_network_that_writes_into_its_input_changes_no_other_mask(kind: str) -> None:
    masks, image = MASKS[kind](2), _stream_input(2).image
    painter = masks.painter(image, torch.zeros_like(image))
    painter.painted([0, 1]).mul_(0)
    for row, index in zip(painter.painted([2, 3]), (2, 3), strict=True):
        expected = _naive(masks, index, image, torch.zeros_like(image))
        torch.testing.assert_close(row, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", MASKS)
def test_equal_identities_are_equal_images(kind: str) -> None:
    masks, image = MASKS[kind](2), _stream_input(2).image
    filled = torch.where(torch.arange(7) < 4, image, torch.zeros_like(image))  # idle on the left
    painter = masks.painter(image, filled)
    images_by_key: dict[object, Tensor] = {None: image}
    for index, key in enumerate(painter.identities()):
        painted = painter.painted([index])[0].clone()
        assert torch.equal(images_by_key.setdefault(key, painted), painted)
    different = {tuple(shown.flatten().tolist()) for shown in images_by_key.values()}
    assert len(different) == len(images_by_key), "two keys for one image"


@every_rank
@pytest.mark.parametrize("kind", ["coalitions", "fades", "per channel", "boxes"])
def test_nothing_changes_outside_the_box_of_a_mask(rank: int, kind: str) -> None:
    masks = MASKS[kind](rank)
    for index in range(len(masks)):
        outside = torch.ones(masks.shape, dtype=torch.bool)
        outside[masks.box(index)] = False
        removed = masks.removed(index)
        assert not (removed & outside).any()
        weights = masks.weights(index, torch.zeros(1)).expand(2, *masks.shape)
        assert torch.equal(removed, (weights < 1).any(dim=0))


@every_rank
def test_sums_over_boxes_are_those_of_their_voxels(rank: int) -> None:
    masks = _boxes(rank)
    assert isinstance(masks, Boxes)
    values = torch.randn(len(masks), dtype=torch.float64)
    expected = sum(
        value * masks.removed(index).double() for index, value in enumerate(values.tolist())
    )
    assert_close(masks.summed(values), cast(Tensor, expected), 1e-12)
    assert int(masks.coverage.amin()) >= 1


@every_rank
def test_sums_over_grids_are_those_of_their_weights(rank: int) -> None:
    masks = _grids(rank)
    assert isinstance(masks, Grids)
    values = torch.randn(len(masks), dtype=torch.float64)
    assert_close(masks.summed(values), DenseMasks.summed(masks, values), 1e-12)


@pytest.mark.parametrize(
    ("side", "window", "stride", "starts"),
    [
        (12, 4, None, (0, 2, 4, 6, 8)),
        (11, 4, None, (0, 2, 4, 6, 8)),  # the last one is cropped, not shifted
        (7, 3, None, (0, 2, 4)),
        (5, 9, 2, (0,)),
        (9, 2, 5, (0, 5, 10)),
    ],
)
def test_where_boxes_start(
    side: int, window: int, stride: int | None, starts: tuple[int, ...]
) -> None:
    """ceil((L - w) / stride) + 1 boxes; those beyond the end are not there."""
    sampler = SlidingBox(window, stride)
    masks = sampler.masks(_stream_input(1), _context((side,)))
    assert isinstance(masks, Boxes)
    assert [box[0].start for box in masks.boxes] == [at for at in starts if at < side]
    assert all(box[0].stop == min(box[0].start + min(window, side), side) for box in masks.boxes)
    assert sampler.expected(_context((side,))) == len(masks)


def test_default_boxes_of_a_cube() -> None:
    context = _context((96, 96, 96))
    assert SlidingBox(1 / 6).expected(context) == 11**3


def test_boxes_in_millimeters() -> None:
    masks = SlidingBox("6mm", "3mm").masks(_stream_input(2), _context((12, 12), (1.0, 3.0)))
    assert isinstance(masks, Boxes)
    assert masks.boxes[0] == (slice(0, 6), slice(0, 2))
    assert len({box[1].start for box in masks.boxes}) == 11


def _rise_by_hand(grid: Tensor, shift: list[int], side: int) -> Tensor:
    """One axis after the other: (cells + 1) * ceil(side / cells) voxels, then the crop."""
    mask = grid[None, None]
    cell = -(-side // grid.shape[0])
    over = (grid.shape[0] + 1) * cell
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[grid.ndim]
    mask = torch.nn.functional.interpolate(mask, (over,) * grid.ndim, mode=mode)[0, 0]
    return mask[tuple(slice(at, at + side) for at in shift)]


@every_rank
def test_random_grids_are_those_of_rise(rank: int) -> None:
    masks = _grids(rank)
    assert isinstance(masks, Grids)
    shifts = set()
    for index in range(len(masks)):
        shift = masks.shifts[index].tolist()
        expected = _rise_by_hand(masks.grids[index], shift, 7)
        result = masks.weights(index, torch.zeros(1))
        torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)
        shifts.add(tuple(shift))
    assert len(shifts) > 2
    assert all(0 <= at < 3 for at in itertools.chain(*shifts))


def test_cells_are_isotropic_in_millimeters() -> None:
    masks = RandomGrids(2, 4).masks(_stream_input(2), _context((40, 20), (1.0, 4.0)))
    assert isinstance(masks, Grids)
    assert masks.grids.shape[1:] == (4, 8)  # 40 mm and 80 mm
    assert masks.cell == (10, 3)


def test_draws_depend_on_the_key_only() -> None:
    def drawn(key: str, samples: int) -> Any:
        masks = RandomGrids(samples).masks(
            StreamInput(torch.zeros(1, 20, 20), 0, key), _context((20, 20))
        )
        assert isinstance(masks, Grids)
        return masks.grids

    assert torch.equal(drawn("a", 4), drawn("a", 9)[:4])
    assert not torch.equal(drawn("a", 4), drawn("b", 4))
    assert 0.4 < float(drawn("a", 50).mean()) < 0.6


@every_rank
def test_the_extent_of_a_region_is_that_in_each_channel(rank: int) -> None:
    """Regions of 2 and 4 voxels along every axis have a mean volume, once or in all channels."""
    labels = torch.full((6,) * rank, -1)
    labels[(slice(0, 2),) * rank], labels[(slice(2, 6),) * rank] = 0, 1
    side = ((2**rank + 4**rank) / 2) ** (1 / rank)
    for each in (labels, labels.expand(3, *labels.shape)):
        masks = Coalitions(RegionMap(each.contiguous()), torch.zeros(1, 2), (6,) * rank)
        assert masks.extent() == pytest.approx((side,) * rank)
