"""Extremal perturbations: mask operator and optimization, against the published ones."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import torch
from networks import assert_close
from scipy import ndimage
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.attribution.methods.distance_mask import DistanceMask
from voxplain.attribution.methods.extremal_mask import COLDNESS, SmoothMask
from voxplain.attribution.methods.extremal_perturbation import _of_areas
from voxplain.models.model import Model

NAME = "extremal_perturbation"


class PublishedMask:
    """The published mask operator in 2-D: the soft maximum over shifted copies.

    Args:
        size: Of the square masks.
        step: Pixels from grid cell to grid cell.
        smoothness: In grid steps.
        margin: Pixels around the masks, which the published area constraint counts too.
    """

    def __init__(self, size: int, step: int, smoothness: int = 3, margin: int = 0) -> None:
        radius = 1 + smoothness
        pixels = torch.arange(-margin, size + margin)
        near = (pixels // step)[:, None] + torch.arange(-radius, radius + 1)
        self.cells = math.ceil(size / step)
        self.index = near.clamp(0, self.cells - 1)
        inside = near == self.index
        away = (pixels[:, None] - step * near) / (step * smoothness)
        distance = (away[:, None, :, None] ** 2 + away[None, :, None, :] ** 2).sqrt()
        kernel = torch.exp(-2 * (distance - 0.5).clamp_min(0) ** 2)
        self.kernel = kernel * inside[:, None, :, None] * inside[None, :, None, :]

    def __call__(self, grid: Tensor) -> Tensor:
        """``(K, cells, cells)`` to ``(K, size, size)``."""
        rows, columns = self.index[:, None, :, None], self.index[None, :, None, :]
        values = (grid[:, rows, columns] * self.kernel).flatten(3)
        return (values * torch.softmax(COLDNESS * values, dim=3)).sum(3).clamp(0, 1)


def grids(cells: int) -> Tensor:
    """Random, smooth and binary values on a square grid."""
    source = torch.Generator().manual_seed(0)
    noise = torch.rand(2, cells, cells, generator=source)
    smooth = torch.from_numpy(ndimage.gaussian_filter(noise[1].numpy(), 1.5))
    box, sparse = torch.zeros(cells, cells), (noise[1] < 0.03).float()
    box[5:10, 4:12] = 1
    gray = torch.full((cells, cells), 0.3)
    return torch.stack(
        [noise[0], noise[1] * 0.4, ((smooth - 0.4) * 5).clamp(0, 1), box, sparse, gray]
    )


class TestMasks:
    @pytest.mark.parametrize(("size", "step"), [(112, 7), (48, 3)])
    def test_the_separable_operator_is_near_the_published_one(self, size: int, step: int) -> None:
        published = PublishedMask(size, step)
        ours = SmoothMask((size, size), size // step, 3.0, torch.zeros(()))
        assert ours.cells == (published.cells,) * 2
        grid = grids(published.cells)
        away = (ours(grid) - published(grid)).abs().flatten(1)
        assert float(away.mean(dim=1).max()) < 0.01
        assert float(away.max()) < 0.06

    def test_one_cell_is_a_ball_that_fades(self) -> None:
        """In 3-D as in 2-D: 1 within half the smoothness, the Gaussian of the distance beyond."""
        mask = SmoothMask((33, 33, 33), 33, 6.0, torch.zeros(()))
        grid = torch.zeros(1, 33, 33, 33)
        grid[0, 16, 16, 16] = 1
        actual = mask(grid)[0]
        axes = torch.meshgrid(*[torch.arange(33.0) - 16] * 3, indexing="ij")
        radius = torch.stack(axes).square().sum(0).sqrt() / 6
        expected = torch.exp(-2 * (radius - 0.5).clamp_min(0) ** 2)
        near = radius < 1
        assert float((actual - expected)[near].abs().max()) < 0.08
        assert float((actual - expected)[near].abs().mean()) < 0.02

    def test_axes_of_one_voxel_do_not_count(self) -> None:
        flat, thin = (
            SmoothMask(shape, 8, 3.0, torch.zeros(())) for shape in ((24, 24), (1, 24, 24))
        )
        grid = torch.rand(2, *flat.cells)
        assert torch.equal(thin(grid)[:, 0], flat(grid))

    def test_parts_that_are_computed_twice_change_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mask = SmoothMask((12, 14, 10), 6, 2.0, torch.zeros((), dtype=torch.float64))
        grid = torch.rand(2, *mask.cells, dtype=torch.float64, requires_grad=True)
        at_once = torch.autograd.grad(mask(grid).square().sum(), grid)[0]
        monkeypatch.setattr("voxplain.attribution.methods.extremal_mask._HELD", 1)
        in_parts = torch.autograd.grad(mask(grid).square().sum(), grid)[0]
        assert_close(in_parts, at_once, 1e-12)


class TestMasksOfVolumes:
    def test_one_cell_is_a_ball_that_fades(self) -> None:
        """1 within half the smoothness, at half height at the smoothness."""
        mask = DistanceMask((33, 33, 33), 33, 6.0, torch.zeros(()))
        grid = torch.zeros(1, 33, 33, 33)
        grid[0, 16, 16, 16] = 1
        actual = mask(grid)[0]
        axes = torch.meshgrid(*[torch.arange(33.0) - 16] * 3, indexing="ij")
        radius = torch.stack(axes).square().sum(0).sqrt() / 6
        assert float(actual[radius < 0.5].min()) > 0.9
        assert float(actual[radius > 2].max()) < 0.05
        half = float((actual > 0.5).sum()) * 3 / (4 * math.pi)
        assert half ** (1 / 3) / 6 == pytest.approx(1.0, abs=0.12)
        for axis in range(3):
            assert_close(actual.flip(axis), actual, 1e-5)
            assert_close(actual.transpose(0, axis), actual, 1e-5)

    def test_masks_reach_from_0_to_1_and_grow_with_every_cell(self) -> None:
        mask = DistanceMask((20, 22, 18), 8, 2.0, torch.zeros((), dtype=torch.float64))
        ends = [mask(torch.full((1, *mask.cells), level).double()) for level in (0.0, 1.0)]
        assert float(ends[0].max()) < 1e-6
        assert float(ends[1].min()) > 0.9
        grid = torch.rand(1, *mask.cells, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(mask(grid).sum(), grid)
        assert bool((slope > 0).all())

    def test_axes_of_one_voxel_do_not_count(self) -> None:
        solid, thin = (
            DistanceMask(shape, 8, 2.0, torch.zeros(()))
            for shape in ((12, 14, 10), (12, 1, 14, 10))
        )
        grid = torch.rand(2, *solid.cells)
        assert torch.equal(thin(grid)[:, :, 0], solid(grid))


class Bright(nn.Module):
    """S = sum of what exceeds 0.5 in the local mean."""

    def __init__(self, rank: int, scale: float = 1.0) -> None:
        super().__init__()
        conv = getattr(nn, f"Conv{rank}d")
        self.mean = conv(1, 1, 3, padding=1)
        self.scale = scale
        nn.init.constant_(self.mean.weight, 1 / 3**rank)
        nn.init.constant_(self.mean.bias, -0.5)

    def forward(self, image: Tensor) -> Tensor:
        return torch.relu(self.mean(image)).flatten(2).sum(2) * self.scale


def phantom(rank: int, size: int, radius: float = 0.15) -> tuple[Tensor, Tensor]:
    """Noise with a bright ball, ``(1, 1, *spatial)``, and where the ball is."""
    source = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, *[size] * rank, generator=source) * 0.3
    axes = torch.meshgrid(*[torch.arange(size)] * rank, indexing="ij")
    middle = [0.35 * size, 0.6 * size, 0.5 * size][:rank]
    apart = torch.stack([(a - m) ** 2 for a, m in zip(axes, middle, strict=True)]).sum(0)
    lesion = apart < (radius * size) ** 2
    image[0, 0][lesion] += 1
    return image, lesion


def overlap(mask: Tensor, lesion: Tensor) -> float:
    """Intersection over union at half height."""
    chosen = mask > 0.5
    return float((chosen & lesion).sum() / (chosen | lesion).sum())


@pytest.mark.parametrize("mode", ["preserve", "delete", "dual"])
def test_a_planted_lesion_is_found(mode: str) -> None:
    """With masks of its size, whose areas are as requested."""
    inputs, lesion = phantom(2, 32, 0.2)
    areas = (0.13, 0.26)
    method = {"name": NAME, "areas": areas, "steps": 60, "mode": mode, "channels": "keep"}
    attribution = explain(Bright(2), inputs, method, 1)[NAME]
    assert float(lesion.float().mean()) == pytest.approx(areas[0], abs=0.02)
    # To keep the score, it is enough to keep most of the lesion: blurred from all sides, what is
    # between stays bright.
    assert overlap(attribution.map[0, 0], lesion) > (0.5 if mode == "preserve" else 0.65)
    assert bool((attribution.map[0, 1][lesion] > 0.5).float().mean() > 0.95)
    for mask, area, facts in zip(
        attribution.map[0], areas, attribution.stats.findings[0]["areas"], strict=True
    ):
        assert float(mask.mean()) == pytest.approx(area, rel=1e-3)
        assert facts == {"asked": area, "covered": pytest.approx(float(mask.mean()))}
    assert attribution.stats.passes == 2 + 60 * 2 * (2 if mode == "dual" else 1)
    summed = explain(Bright(2), inputs, {**method, "channels": "sum"}, 1)[NAME]
    assert_close(summed.map[:, 0], attribution.map.sum(1))


def test_a_lesion_in_a_volume() -> None:
    inputs, lesion = phantom(3, 24, 0.2)
    share = float(lesion.float().mean())
    method = {"name": NAME, "areas": share, "steps": 200}
    mask = explain(Bright(3), inputs, method, 1)[NAME].map[0, 0]
    assert overlap(mask, lesion) > 0.7
    assert float(mask.mean()) == pytest.approx(share, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.016, 0.05])
def test_a_small_lesion_in_a_large_volume(share: float) -> None:
    """The mask covers as much as is asked, where the lesion is, in little more than the passes."""
    inputs, lesion = phantom(3, 48, (share * 3 / (4 * math.pi)) ** (1 / 3))
    network = Bright(3).requires_grad_(False)
    started = time.process_time()
    attribution = explain(network, inputs, {"name": NAME, "areas": share}, 1)[NAME]
    spent = time.process_time() - started
    started = time.process_time()
    for _ in range(20):
        leaf = inputs.clone().requires_grad_(True)
        torch.autograd.grad(network(leaf).sum(), leaf)
    bare = (time.process_time() - started) / 20 * attribution.stats.passes
    mask = attribution.map[0, 0]
    assert float(mask.mean()) == pytest.approx(share, rel=1e-3)
    assert float((mask > 0.5).float().mean()) == pytest.approx(share, rel=0.1)
    assert overlap(mask, lesion) > 0.7
    assert spent < 3 * bare


def test_the_scale_of_the_score_does_not_matter() -> None:
    """Logits, sums over thousands of voxels, probabilities: masks do not depend on the scale."""
    inputs, _ = phantom(2, 24, 0.2)
    method = {"name": NAME, "areas": 0.15, "steps": 15}
    small, large = (
        explain(Bright(2, scale), inputs.double(), method, 1)[NAME].map
        for scale in (2.0**-10, 2.0**10)
    )
    assert_close(small, large, 1e-6)


def test_windows_search_the_whole_volume() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Softplus(), nn.Conv2d(4, 2, 1)).double()
    inputs = phantom(2, 12)[0].double()
    windowed = Model(network, window={"size": 8, "overlap": 0.5})
    method: dict[str, Any] = {"name": NAME, "areas": (0.1, 0.3), "steps": 6}
    whole, parts = (
        explain(model, inputs, method, {"kind": "volume", "label": 1})[NAME].map
        for model in (network, windowed)
    )
    assert_close(parts, whole, 1e-9)


def test_the_mirrored_image_is_seen_at_every_other_step() -> None:
    """For a score that is invariant to mirroring it changes nothing."""
    inputs, _ = phantom(2, 16)
    method = {"name": NAME, "areas": 0.2, "steps": 6}
    plain, mirrored = (
        explain(Bright(2).double(), inputs.double(), {**method, "mirror": mirror}, 1)[NAME].map
        for mirror in (False, True)
    )
    assert_close(mirrored, plain, 1e-9)
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 2)).double()
    plain, mirrored = (
        explain(network, inputs.double(), {**method, "mirror": mirror}, 1)[NAME].map
        for mirror in (False, True)
    )
    assert not torch.allclose(mirrored, plain)


def published_search(network: nn.Module, image: Tensor, areas: tuple[float, ...]) -> Tensor:
    """The published optimization in 2-D: 800 steps of SGD on sorted masks, one reward per area."""
    size = image.shape[-1]
    margin = 3
    operator = PublishedMask(size, 1, margin=margin)
    padded = (size + 2 * margin) ** 2
    levels = torch.stack([_blurred(image, level) for level in range(8)])
    with torch.no_grad():
        lost = float(network(image) - network(levels[:1, None]))
    grid = torch.ones(len(areas), operator.cells, operator.cells, requires_grad=True)
    optimizer = torch.optim.SGD(
        [grid], lr=0.01 * grid[0].numel() / 1024, momentum=0.9, dampening=0.9
    )
    wanted = torch.stack(
        [(torch.arange(padded) >= padded - int(size**2 * area)).float() for area in areas]
    )
    penalty = 300.0
    for _ in range(800):
        masks = operator(grid)
        inputs = _kept(levels, masks[:, margin:-margin, margin:-margin])
        reward = 10 * network(inputs[:, None])[:, 0] / lost
        excess = (masks.flatten(1).sort(dim=1).values - wanted).square().mean(dim=1)
        optimizer.zero_grad()
        (penalty * excess - reward).sum().backward()
        optimizer.step()
        grid.data.clamp_(0, 1)
        penalty *= 1.0035
    return masks.detach()[:, margin:-margin, margin:-margin]


def _blurred(image: Tensor, level: int) -> Tensor:
    sigma = 0.09 * image.shape[-1] * (1 - level / 7)
    return torch.from_numpy(ndimage.gaussian_filter(image[0, 0].numpy(), sigma, mode="nearest"))


def _kept(levels: Tensor, masks: Tensor) -> Tensor:
    """Images that are the sharper the higher the masks, linear between the levels."""
    height = masks * (len(levels) - 1)
    below = height.detach().floor().clamp(0, len(levels) - 2).long()
    lower, upper = (levels.gather(0, below + step) for step in (0, 1))
    return lower + (height - below) * (upper - lower)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "radius"), [(32, 0.2), (32, 0.12), (40, 0.15)])
def test_masks_keep_as_much_of_the_score_as_those_of_the_published_search(
    size: int, radius: float
) -> None:
    """Of equal areas: the published masks do not meet theirs, so their edges are moved as well.

    Where the masks lie need not be the same: many of one area keep the score, and the published
    search follows the order in which sorting leaves equal values, which depends on the processor.
    """
    inputs, _ = phantom(2, size, radius)
    areas = (0.05, 0.1, 0.13)
    network = Bright(2).requires_grad_(False)
    published = _of_areas(published_search(network, inputs, areas), areas)
    method = {"name": NAME, "areas": areas, "cells": size, "channels": "keep"}
    ours = explain(network, inputs, method, 1)[NAME].map[0]
    levels = torch.stack([_blurred(inputs, level) for level in range(8)])
    whole, removed = float(network(inputs)), float(network(levels[:1, None]))
    kept, expected = (network(_kept(levels, masks)[:, None])[:, 0] for masks in (ours, published))
    assert bool((kept > expected - 0.05 * (whole - removed)).all())
    assert float(kept[-1] - removed) > 0.9 * (whole - removed)


def test_nodes_apart_give_nearly_the_masks_of_every_voxel(monkeypatch: pytest.MonkeyPatch) -> None:
    like, shape = torch.zeros(()), (40, 44, 36)
    whole = SmoothMask(shape, 12, 3.0, like)
    monkeypatch.setattr("voxplain.attribution.methods.extremal_mask._MANY", 1)
    apart = SmoothMask(shape, 12, 3.0, like)
    assert apart.voxels_per_node == 8
    assert whole.voxels_per_node == 1
    grid = (torch.rand(2, *whole.cells) > 0.9).float()
    one, other = whole(grid), apart(grid)
    assert one.amax() > 0.9
    assert (one - other).abs().amax() < 0.15
    assert (one - other).abs().mean() < 0.01
    share, actual = (m.padded(grid).mean(dim=(1, 2, 3)) for m in (whole, apart))
    torch.testing.assert_close(share, actual, rtol=0.1, atol=0)
