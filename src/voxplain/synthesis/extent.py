"""Where images are synthesized: the whole grid, the receptive field of a unit, or a window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from voxplain.engine.baselines import foreground
from voxplain.errors import ConfigError
from voxplain.image import Grid, Image
from voxplain.models.model import Model
from voxplain.models.output_place import at_box
from voxplain.synthesis.image_statistics import ImageStatistics
from voxplain.synthesis.objectives.base import Objective
from voxplain.synthesis.reading import Reader, Reading, at_cell
from voxplain.synthesis.surface import Surface

Extent = Literal["auto", "image", "receptive_field"] | tuple[int, ...]
"""The grid of the statistics, the voxels that reach the center of a unit, or a shape in voxels;
``auto`` takes the receptive field where an image has more than 64^3 voxels."""

_MANY = 64**3
_SHARE = 0.95
"""Of the absolute gradient that the box of a receptive field holds along each axis."""


def free_surface(
    model: Model, statistics: ImageStatistics, objectives: Sequence[Objective], extent: Extent
) -> Surface:
    """Where images from noise are synthesized.

    Args:
        model: The network. With windows, images have the shape of one at most.
        statistics: Of the images of the user.
        objectives: What will be driven.
        extent: How large the images are.

    Raises:
        ConfigError: If a shape has another number of axes.
    """
    like = model.admit(torch.zeros(1, dtype=torch.float32))
    whole = statistics.grid
    inside = _inside(whole, _seen_at_once(model, statistics))
    if not isinstance(extent, str):
        if len(extent) != whole.rank:
            raise ConfigError(f"an extent of {len(extent)} sizes for images with {whole.rank} axes")
        return _surface(_centered(whole, extent), statistics, like)
    many = math.prod(inside.shape) > _MANY
    if extent == "image" or (extent == "auto" and not many):
        return _surface(inside, statistics, like)
    shape = receptive_field(model, _surface(inside, statistics, like), objectives)
    return _surface(_centered(inside, shape), statistics, like)


def image_surface(image: Image, statistics: ImageStatistics, model: Model) -> Surface:
    """Where images that start from a given one are synthesized; its background stays."""
    inside = torch.stack([foreground(channel) for channel in image.data]).any(dim=0)
    mask = None if bool(inside.all()) else inside.double()
    like = model.admit(torch.zeros(1, dtype=torch.float32))
    return Surface(image.grid, statistics, like, mask, image.data)


def receptive_field(
    model: Model, surface: Surface, objectives: Sequence[Objective]
) -> tuple[int, ...]:
    """The box in voxels that holds 95 % of what reaches the center of the units, per axis.

    It is the largest over the objectives, rounded up to the coarsest stride of the network; the
    whole grid for what has no cells.

    Paper: Luo et al., Understanding the effective receptive field, 2016.
    """
    taps = [tap for each in objectives for tap in each.taps]
    image = model.admit(surface.in_range(surface.noise(["receptive field"])))
    with torch.enable_grad(), model.at_rest(), model.precise():
        reader = Reader(model, image, taps)
        shown = image.clone().requires_grad_(True)
        reading = reader(shown)
        boxes = [_box(each, reading, shown) for each in objectives]
        stride = coarsest_stride(reader)
    return tuple(
        min(size, step * math.ceil(max(sides) / step))
        for size, step, *sides in zip(surface.grid.shape, stride, *boxes, strict=True)
    )


def _box(objective: Objective, reading: Reading, shown: Tensor) -> tuple[int, ...]:
    cells = [reading.values[tap] for tap in objective.taps] or [reading.output]
    centers = [
        at_cell(value, [size // 2 for size in value.shape[2:]]).abs().sum() for value in cells
    ]
    total = torch.stack(centers).sum()
    (gradient,) = torch.autograd.grad(total, shown, retain_graph=True, allow_unused=True)
    shape = tuple(shown.shape[2:])
    if gradient is None or not bool(gradient.any()):
        return shape
    strength = gradient.abs().sum(dim=(0, 1))
    return tuple(_side(strength, axis) for axis in range(len(shape)))


def _side(strength: Tensor, axis: int) -> int:
    """The length around the center of mass that holds the share along one axis."""
    others = [other for other in range(strength.ndim) if other != axis]
    profile = strength.sum(dim=others) if others else strength
    places = torch.arange(len(profile), device=profile.device).to(profile)
    center = float((profile * places).sum() / profile.sum())
    distance, order = (places - center).abs().sort()
    held = profile[order].cumsum(0) / profile.sum()
    reach = float(distance[int((held < _SHARE).sum().clamp_max(len(profile) - 1))])
    return min(len(profile), 2 * math.ceil(reach) + 1)


def coarsest_stride(reader: Reader) -> tuple[int, ...]:
    """The largest stride of a layer per axis, 32 voxels at most."""
    strides = [info.stride for info in reader.layers.listed if info.spatial]
    if not strides:
        return (1,) * len(reader.layers.shape)
    axes = zip(*strides, strict=True)
    return tuple(max(1, min(32, round(max(abs(step) for step in axis)))) for axis in axes)


def strongest_window(model: Model, image: Image, objective: Objective) -> Image:
    """The image, or the window of it in which the objective is largest, for windowed networks."""
    layout = model.layout(image.data, image.grid.spacing_mm)
    if layout is None:
        return image
    padded = layout.pad(model.admit(image.data))
    regions = [layout.box(position) for position in layout.positions]
    example = padded[at_box(regions[0])][None]
    with torch.no_grad(), model.at_rest(), model.precise():
        reader = Reader(model, example, objective.taps)
        values = [
            float(objective.value(reader(padded[at_box(region)][None]))) for region in regions
        ]
    best = regions[max(range(len(values)), key=values.__getitem__)]
    sides = zip(best, layout.image_box, strict=True)
    start = [side.start - box.start for side, box in sides]
    data = padded[at_box(best)].to(image.data)
    grid = image.grid.sub(start, (1,) * image.rank, data.shape[1:])
    return Image(data, grid, image.channels)


def _seen_at_once(model: Model, statistics: ImageStatistics) -> tuple[int, ...]:
    """The shape that one call of the network sees."""
    if model.window is None:
        return statistics.grid.shape
    volume = torch.zeros(len(statistics.channels), *statistics.grid.shape)
    layout = model.layout(volume, statistics.grid.spacing_mm)
    return statistics.grid.shape if layout is None else tuple(layout.size)


def _inside(grid: Grid, shape: tuple[int, ...]) -> Grid:
    return grid if grid.shape == shape else _centered(grid, shape)


def _centered(grid: Grid, shape: Sequence[int]) -> Grid:
    """A grid of another shape around the same center."""
    start = [(size - new) / 2 for size, new in zip(grid.shape, shape, strict=True)]
    return grid.sub([math.floor(at) for at in start], (1,) * grid.rank, shape)


def _surface(grid: Grid, statistics: ImageStatistics, like: Tensor) -> Surface:
    """The body mask holds on the whole grid; a part of it is taken to lie inside the body."""
    mask = statistics.mask if grid.shape == statistics.grid.shape else None
    return Surface(grid, statistics, like, None if mask is None else mask.double())
