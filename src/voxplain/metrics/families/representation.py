"""Stability of a map relative to what the network makes of the neighbors of an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.taps import Tap, tapping
from voxplain.errors import ModelError
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.families.robustness import UnderNoise
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.metric import Value, register
from voxplain.metrics.queries.perturbations import Perturbation, UniformNoise
from voxplain.metrics.randomization.stages import stages
from voxplain.models.geometry import LayerGeometry
from voxplain.models.precision import running_in
from voxplain.models.windows import Layout

_LEAST = 1e-6
"""A relative change of the representation counts as at least so much."""


@register
class RelativeRepresentationStability(UnderNoise):
    """The largest relative change of the map per relative change of a layer's activation.

    max (||a(x') - a(x)|| / ||a(x)||) / (||h(x') - h(x)|| / ||h(x)||), h what a layer gives (Agarwal
    et al., 2022). Norms of the whole map and layer are compared, not one number at a time, so that
    voxels where the map is 0 do not decide.
    """

    reference: ClassVar[str] = "Agarwal et al., 2022"
    name: Literal["relative_representation_stability"] = "relative_representation_stability"
    layer: str | None = Field(
        default=None, description="absent: what enters the last layer with weights"
    )

    def queries(self, context: Context) -> tuple[Query, ...]:
        """The neighbors that sensitivity shares, and what the layer makes of them."""
        seen = Representations(UniformNoise(self.radius), self.draws, self.layer)
        return (*super().queries(context), seen)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """The maximum."""
        steps = self.steps(field, context)
        found: Represented = context.run_query(self.queries(context.base)[1], field)
        pairs = zip(steps, found.changes, strict=True)
        value = max(step.map / max(change, _LEAST) for step, change in pairs)
        return Value(value, facts={"layer": found.layer})


@dataclass(frozen=True)
class Represented:
    """How far a layer's activation went.

    Attributes:
        layer: What was looked at, in words.
        changes: ||h(x') - h(x)|| / ||h(x)|| per neighbor.
    """

    layer: str
    changes: tuple[float, ...]


@dataclass(frozen=True)
class Representations(Query):
    """Activations of a layer for the neighbors of an image.

    Attributes:
        around: How neighbors are made.
        draws: How many.
        layer: Its path; None for what enters the last layer with weights.
    """

    around: Perturbation
    draws: int
    layer: str | None = None

    def expected(self, context: Context) -> int:
        """The image and its neighbors."""
        return self.draws + 1

    def run(self, context: MetricContext, field: MapField) -> Represented:
        """Sums of squares, window by window where the network sees windows."""
        image, key = context.item.image, context.item.key
        around = self.around.on(context.spacing)
        neighbors = [around.changed(image, key, draw) for draw in range(self.draws)]
        tap = self._tap(context.base)
        context.forwards += self.expected(context.base)
        squares = torch.zeros(self.draws + 1, dtype=torch.float64)
        for shown, weights in _views(context.base, tap, [image, *neighbors]):
            squares += _squares(context.base, tap, shown, weights)
        if not float(squares[0]):
            raise Undefined(f"{_in_words(tap)} is 0 for this image")
        changes = (squares[1:] / squares[0]).sqrt().tolist()
        return Represented(_in_words(tap), tuple(changes))

    def _tap(self, context: Context) -> Tap:
        if self.layer is not None:
            return context.taps((self.layer,))[0]
        return _last_input(context)


def _last_input(context: Context) -> Tap:
    """What enters the last layer with weights from which the explained output comes."""
    for path in reversed(stages(context.model, context.example)):
        if _feeds(context, path):
            return Tap(path, "input")
    raise Undefined("no tensor enters a layer with weights; name a layer to compare with")


def _feeds(context: Context, path: str) -> bool:
    """Whether the explained output comes from this layer; that of auxiliary heads may not."""
    model, taps = context.model, (Tap(path, "input"), Tap(path))
    image = context.example.detach().clone().requires_grad_(model.differentiable)
    try:
        with torch.enable_grad(), model.at_rest(), tapping(model.network, taps) as tapped:
            output = model(image)
            _, given = (tapped[tap] for tap in taps)
    except ModelError:  # what enters is no tensor, or nothing calls the layer as such
        return False
    if not output.requires_grad:
        return True
    if not given.requires_grad:  # the image has no part in it
        return False
    return torch.autograd.grad(output.sum(), given, allow_unused=True)[0] is not None


def _in_words(tap: Tap) -> str:
    layer = f"layer {tap.path!r}" if tap.path else "the network"
    return layer if tap.side == "output" else f"what enters {layer}"


def _views(
    base: Context, tap: Tap, images: list[Tensor]
) -> Iterator[tuple[Iterator[Tensor], Tensor | None]]:
    """What one call of the network sees of each image, and how much its cells count there."""
    layout, batch = base.layout, base.model.window.batch if base.model.window else 1
    if layout is None:
        yield (image[None] for image in images), None
        return
    padded = [layout.pad(image) for image in images]
    for positions in layout.batches(batch):
        cut = (layout.cut(volume, positions) for volume in padded)
        yield cut, _cell_weights(layout, positions, base.geometry(tap))


def _cell_weights(
    layout: Layout, positions: tuple[tuple[int, ...], ...], geometry: LayerGeometry
) -> Tensor:
    """Blending weights where the cells of a layer lie, ``(windows, 1, *cells)``; 0 in padding.

    A cell that several windows see counts once, as a voxel of the output does.
    """
    if not geometry.spatial:
        return torch.ones(len(positions), *(1,) * (1 + len(layout.size)), dtype=torch.float64)
    real = layout.pad(torch.ones(layout.shape, dtype=torch.float64))
    weights = torch.stack([layout.weight(one) * real[layout.box(one)] for one in positions])
    grid = zip(geometry.start, geometry.stride, geometry.shape, layout.size, strict=True)
    for axis, (start, stride, cells, side) in enumerate(grid, start=1):
        places = (start + stride * torch.arange(cells, dtype=torch.float64)).round().long()
        weights = weights.index_select(axis, places.clamp(0, side - 1))
    return weights[:, None]


def _squares(context: Context, tap: Tap, shown: Iterator[Tensor], weights: Tensor | None) -> Tensor:
    """Sums of the squares of the first activation, and of its difference to each other one."""
    first: Tensor | None = None
    sums: list[float] = []
    for images in shown:
        activation = _activation(context, tap, images, weights is not None)
        first = activation if first is None else first
        square = (activation - first if sums else activation).square()
        square = square if weights is None else square * weights.to(square)
        sums.append(float(square.sum(dtype=torch.float64)))
    return torch.tensor(sums, dtype=torch.float64)


def _activation(context: Context, tap: Tap, images: Tensor, arranged: bool) -> Tensor:
    model = context.model
    with torch.inference_mode(), running_in(model.precision, model.device), model.at_rest():
        with tapping(model.network, (tap,)) as tapped:
            model(images)
        found = tapped[tap]
        found = context.arranged(tap, found) if arranged else found
    if not found.is_floating_point():
        raise Undefined(f"{_in_words(tap)} holds no real numbers")
    return found if found.dtype is torch.float64 else found.float()


__all__ = ["RelativeRepresentationStability", "Representations", "Represented"]
