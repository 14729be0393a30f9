"""Extremal perturbation: masks of given areas that keep, or whose removal lowers, the score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from voxplain.attribution.methods.distance_mask import DistanceMask
from voxplain.attribution.methods.extremal_mask import GridMask, SmoothMask
from voxplain.engine.blur import blurred, isotropic_sigma
from voxplain.engine.context import Context
from voxplain.engine.gradients.reducers import LastMasks
from voxplain.engine.gradients.samplers import PointBatch, PointSequence, Sampler
from voxplain.engine.method import ChannelReduction, Method, register
from voxplain.engine.requests import GradientRequest
from voxplain.engine.stream_io import MethodOutput, StreamInput

Mode = Literal["preserve", "delete", "dual"]
Share = Annotated[float, Field(gt=0, lt=1)]

REWARD = 10.0
"""Drop of the score of a wholly blurred image, on the scale that ``penalty`` is balanced for. The
published 300 is for logits of classifiers, which drop by about ten; scores of thousands of voxels
are scaled so that this image drops by as much."""

_STEPS, _RATE, _MOMENTUM, _GROWTH = 800, 0.01, 0.9, 1.0035
_LONGEST = 16.0  # published steps in one step of ours; longer ones overshoot
_CELLS = 32**2  # of the published grid; the step of a cell does not depend on their number
_TIE = 0.05  # masks closer than this count as equal; in the second half it falls to 0
_LEAST = 0.01  # of |S(x)|: smaller drops are not scaled up further
_LEAST_CELLS = 6.0  # masks of one cell that fit into the smallest area
_CELL_VOLUME = 3.6  # of a mask of one cell, at half height, in widths of the kernel
_HALVINGS = 30


@register
class ExtremalPerturbation(Method):
    """The voxels that keep the score when all others are blurred, by optimized smooth masks.

    In the end the edge of each mask is moved until it covers its area exactly. In volumes masks are
    smooth only as far as six masks of one cell fit into the smallest area.

    One mask per area is optimized; the map is their sum, largest in the smallest area.
    ``channels: keep`` gives the mask of each area. The optimization makes ``steps`` passes per
    area; nothing in it is random.
    """

    formula = "argmax_m S(blend(x, m)) - lambda mean (sort(m) - r_a)^2, summed over areas a"
    reference = "Fong, Patrick and Vedaldi, 2019"
    units = "number of areas"
    resampling = "value"
    positive = True
    family = "optimization"
    revision = 2
    name: Literal["extremal_perturbation"] = "extremal_perturbation"
    channels: ChannelReduction = "sum"
    areas: tuple[Share, ...] = Field(
        default=(0.05, 0.1, 0.2, 0.4), min_length=1, description="shares of the image"
    )
    steps: int = Field(default=400, ge=1)
    mode: Mode = Field(
        default="preserve", description="keep the score inside, lower it without, or both"
    )
    penalty: float = Field(default=300.0, gt=0, description="weight of the area constraint")
    cells: int = Field(default=32, ge=2, description="of the mask grid, per axis")
    smoothness: float = Field(
        default=3.0, gt=0, description="of masks, in grid steps; in volumes at most"
    )
    levels: int = Field(default=8, ge=2, description="number of blurs, from sharp to removed")
    blur: float = Field(
        default=0.09, gt=0, le=1, description="strongest blur, a fraction of the shortest axis"
    )
    mirror: bool = Field(
        default=False, description="every other step on the mirrored image, as published"
    )

    @field_validator("areas", mode="before")
    @classmethod
    def _always_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, float) else value

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """One stream for all areas."""
        search = MaskSearch(
            areas=self.areas,
            steps=self.steps,
            mode=self.mode,
            penalty=self.penalty,
            cells=self.cells,
            smoothness=self.smoothness,
            levels=self.levels,
            blur=self.blur,
            mirror=self.mirror,
            spacing=context.spacing,
        )
        return (GradientRequest(search, partial(LastMasks, len(self.areas))),)

    def conclude(
        self, maps: dict[str | None, Tensor], image: Tensor, context: Context
    ) -> MethodOutput:
        """Findings: the share of the image that each mask covers, beside the requested one."""
        pairs = zip(self.areas, maps[None], strict=True)
        areas = [{"asked": area, "covered": float(mask.mean())} for area, mask in pairs]
        return MethodOutput(maps, {"areas": areas})


@dataclass(frozen=True)
class MaskSearch(Sampler):
    """Gradient ascent on smooth masks of given areas, one mask and one reward per area.

    Attributes:
        areas: Shares of the image that the masks may cover.
        steps: Of the ascent.
        mode: Keep the score inside, lower it when the inside is removed, or both.
        penalty: Weight of the area constraint, growing to 16 times as much.
        cells: Cells of the mask grid per axis.
        smoothness: Of the masks, in grid steps.
        levels: Blurs from sharp to removed.
        blur: Strongest blur as a fraction of the shortest axis.
        mirror: Show every other perturbed image mirrored along its last axis.
        spacing: Millimeters per voxel, for a blur that is isotropic in mm.
    """

    areas: tuple[float, ...]
    steps: int
    mode: Mode = "preserve"
    penalty: float = 300.0
    cells: int = 32
    smoothness: float = 3.0
    levels: int = 8
    blur: float = 0.09
    mirror: bool = False
    spacing: tuple[float, ...] | None = None

    @property
    def width(self) -> int:
        """Points per step."""
        return len(self.areas) * (2 if self.mode == "dual" else 1)

    @property
    def passes(self) -> int:
        """One per point, and two before them: the image itself, and the image wholly blurred."""
        return 2 + self.steps * self.width

    def route(self, item: StreamInput) -> PointSequence:
        """A first round that finds the scale of the score, then one round per step."""
        ascent = _Ascent(self, item.image)
        rounds = (2, *(self.width,) * self.steps)
        return PointSequence(self.passes, ascent.draw, ascent.feedback, rounds)


class _Ascent:
    """The state of the gradient ascent on one image."""

    def __init__(self, sampler: MaskSearch, image: Tensor) -> None:
        self._sampler = sampler
        self._perturb = _Pyramid(sampler, image)
        self._spread = _spread(sampler, image)
        count = len(sampler.areas)
        self._grid = image.new_ones(count, *self._spread.cells)
        self._velocity: Tensor | None = None
        self._penalty = sampler.penalty
        self._scale = 0.0
        self._step = 0
        self._first = 0
        ones = image.new_ones(1, *image.shape[1:])
        self._masks = self._kept = torch.cat([ones, torch.zeros_like(ones)])
        self._padded = self._masks
        self._leaf = self._grid
        self._inputs, self._slopes = self._perturb(self._kept)

    def draw(self, indices: range) -> PointBatch:
        """Perturbed images of this round."""
        local = slice(indices.start - self._first, indices.stop - self._first)
        inputs = self._flipped(self._inputs[local])
        times = len(self._kept) // len(self._masks)
        masks = torch.cat([self._masks.detach()] * times)[local, None]
        weights = torch.full((len(indices),), 1 / self._sampler.passes, dtype=torch.float64)
        return PointBatch(inputs, weights, masks=masks)

    def feedback(self, scores: Tensor, gradients: Tensor) -> None:
        """One step of the ascent; none after the last points."""
        if self._step == self._sampler.steps:
            return
        self._first += len(scores)
        if self._step == 0:
            whole, removed = (float(score) for score in scores)
            self._scale = REWARD / max(abs(whole - removed), _LEAST * abs(whole), 1e-12)
        else:
            self._climb(self._flipped(gradients))
        self._step += 1
        self._shape_masks()

    def _climb(self, gradients: Tensor) -> None:
        """A step of SGD with momentum and equal dampening, as published; fewer steps are longer."""
        nodes = self._padded.detach().flatten(1)
        excess = (nodes - self._wanted(nodes)).view_as(self._padded)
        pull = 2 * self._penalty / nodes.shape[1] * excess
        reward = self._scale * self._by_mask((gradients * self._slopes).sum(dim=1))
        (gradient,) = torch.autograd.grad((self._padded, self._masks), self._leaf, (pull, -reward))
        if self._velocity is None:
            self._velocity = gradient
        else:
            self._velocity = _MOMENTUM * self._velocity + (1 - _MOMENTUM) * gradient
        stride = min(_STEPS / self._sampler.steps, _LONGEST)
        rate = self._spread.pace * stride * _RATE * self._grid[0].numel() / _CELLS
        self._grid = (self._grid - rate * self._velocity).clamp(0, 1)
        self._penalty *= _GROWTH**stride

    def _shape_masks(self) -> None:
        """The masks of the present grid, and the part of the image that each point keeps."""
        with torch.enable_grad():
            self._leaf = self._grid.detach().requires_grad_(True)
            self._padded = self._spread.padded(self._leaf)
            self._masks = self._spread.inside(self._padded)
        masks = self._masks.detach()
        if self._step == self._sampler.steps:
            self._masks = masks = _of_areas(masks, self._sampler.areas)
        kept = {"preserve": [masks], "delete": [1 - masks], "dual": [masks, 1 - masks]}
        self._kept = torch.cat(kept[self._sampler.mode])
        self._inputs, self._slopes = self._perturb(self._kept)

    def _wanted(self, masks: Tensor) -> Tensor:
        """The values ``(K, nodes)`` that the area constraint pulls each mask to: 1 for the largest.

        The published constraint compares sorted masks with zeros and ones. Nodes whose masks tie
        get the same value here, or their order in memory would decide: at the start all masks tie,
        and whatever came first (a border, say) would stay in the mask.
        """
        count, inside = masks.shape[1], self._masks[0].numel() / self._spread.voxels_per_node
        zeros = masks.new_tensor([count - int(inside * area) for area in self._sampler.areas])
        ordered = masks.sort(dim=1).values
        tie = _TIE * min(1.0, 2 - 2 * self._step / self._sampler.steps)
        below = torch.searchsorted(ordered, masks - tie)
        above = torch.searchsorted(ordered, masks + tie, right=True)
        return ((above - zeros[:, None]) / (above - below)).clamp(0, 1).to(masks)

    def _by_mask(self, slopes: Tensor) -> Tensor:
        """The slope of the reward per mask ``(K, *spatial)``.

        The reward is S where the inside is kept, minus S where it is removed; what is kept without
        the inside falls as the mask rises.
        """
        return slopes.view(-1, *self._masks.shape).sum(dim=0)

    def _flipped(self, images: Tensor) -> Tensor:
        mirrored = self._sampler.mirror and self._step > 0 and self._step % 2 == 1
        return images.flip(-1) if mirrored else images


class _Pyramid:
    """The image at blurs from the strongest (mask 0) to none (mask 1)."""

    def __init__(self, sampler: MaskSearch, image: Tensor) -> None:
        widest = isotropic_sigma(sampler.blur, image.shape[1:], sampler.spacing)
        shares = [1 - level / (sampler.levels - 1) for level in range(sampler.levels)]
        levels = [blurred(image, [share * width for width in widest]) for share in shares]
        self._levels = torch.stack(levels)

    def __call__(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``(k, C, *spatial)`` for masks ``(k, *spatial)``, and their slopes in the mask.

        Between the levels images are linear in the mask.
        """
        last = len(self._levels) - 1
        height = masks[:, None] * last
        below = height.floor().clamp(0, last - 1)
        index = below.long().expand(len(masks), *self._levels.shape[1:])
        lower, upper = (self._levels.gather(0, index + step) for step in (0, 1))
        rise = upper - lower
        return lower + (height - below) * rise, last * rise


def _spread(sampler: MaskSearch, image: Tensor) -> GridMask[Any]:
    """The masks of images, or those of volumes, no wider than the smallest area takes."""
    shape = image.shape[1:]
    if sum(size > 1 for size in shape) < 3:
        return SmoothMask(shape, sampler.cells, sampler.smoothness, image)
    smoothness = min(sampler.smoothness, _smoothness_for(min(sampler.areas), shape, sampler.cells))
    return DistanceMask(shape, sampler.cells, smoothness, image)


def _smoothness_for(area: float, shape: Sequence[int], cells: int) -> float:
    """The smoothness at which a mask of one cell covers a sixth of an area, in grid steps."""
    steps = [max(1, round(size / cells)) for size in shape if size > 1]
    voxels = area * math.prod(shape) / _LEAST_CELLS
    return math.pow(voxels / math.prod(steps) / _CELL_VOLUME, 1 / len(steps))


def _of_areas(masks: Tensor, areas: Sequence[float]) -> Tensor:
    """Masks with the edges of these, moved in or out until the mean of each is its area."""
    wanted = masks.new_tensor(areas).view(-1, *(1,) * (masks.ndim - 1))
    low, high = torch.full_like(wanted, -1.0), torch.full_like(wanted, 2.0)
    axes = tuple(range(1, masks.ndim))
    for _ in range(_HALVINGS):
        level = (low + high) / 2
        above = _edged(masks, level).mean(dim=axes, keepdim=True) > wanted
        low, high = torch.where(above, level, low), torch.where(above, high, level)
    return _edged(masks, (low + high) / 2)


def _edged(masks: Tensor, level: Tensor) -> Tensor:
    """Masks of one half where these have a level, with edges of half the width."""
    return (0.5 + 2 * (masks - level)).clamp(0, 1)
