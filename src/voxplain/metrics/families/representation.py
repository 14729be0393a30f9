"""Stability of a map relative to the change of a layer's activation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.randomization.stages import stages
from voxplain.engine.taps import Tap, tapping
from voxplain.engine.variants.perturbations import Perturbation, UniformNoise
from voxplain.errors import ModelError
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.families.robustness import NoiseStability
from voxplain.metrics.maps import MapField, Undefined
from voxplain.metrics.metric import Value, register
from voxplain.models.failures import gradient_failures_in_words
from voxplain.models.geometry import LayerGeometry
from voxplain.models.layout import Layout

_SMALLEST_CHANGE = 1e-6
"""A relative change of the representation counts as at least so much."""


@register
class RelativeRepresentationStability(NoiseStability):
    """The largest relative change of the map per relative change of a layer's activation.

    max (||a(x') - a(x)|| / ||a(x)||) / (||h(x') - h(x)|| / ||h(x)||), h the activation of the layer
    (Agarwal et al., 2022). Norms of the whole map and layer are compared, not one number at a time,
    so that voxels where the map is 0 do not decide.
    """

    reference: ClassVar[str] = "Agarwal et al., 2022"
    name: Literal["relative_representation_stability"] = "relative_representation_stability"
    layer: str | None = Field(
        default=None, description="absent: what enters the last layer with weights"
    )

    def queries(self, context: Context) -> tuple[Query, ...]:
        """The neighbors of the sensitivity metrics, and the activations for them."""
        representations = Representations(UniformNoise(self.radius), self.draws, self.layer)
        return (*super().queries(context), representations)

    def score(self, field: MapField, context: MetricContext) -> Value:
        steps = self.steps(field, context)
        query = self.queries(context.engine)[1]
        representation: RepresentationChanges = context.run_query(query)
        pairs = zip(steps, representation.changes, strict=True)
        value = max(step.map / max(change, _SMALLEST_CHANGE) for step, change in pairs)
        return Value(value, facts={"layer": representation.layer})


@dataclass(frozen=True)
class RepresentationChanges:
    """Changes of a layer's activation for the neighbors of an image.

    Attributes:
        layer: The layer, in words.
        changes: ||h(x') - h(x)|| / ||h(x)|| per neighbor.
    """

    layer: str
    changes: tuple[float, ...]


@dataclass(frozen=True)
class Representations(Query):
    """Changes of a layer's activation for the neighbors of an image.

    Attributes:
        around: How neighbors are made.
        draws: How many.
        layer: Its path; None for what enters the last layer with weights.
    """

    around: Perturbation
    draws: int
    layer: str | None = None

    def cost(self, context: Context) -> int:
        """The image and its neighbors."""
        return self.draws + 1

    def run(self, context: MetricContext) -> RepresentationChanges:
        """Norms over the whole layer; sums of squares over the windows of windowed networks."""
        image, key = context.input.image, context.input.key
        around = self.around.on(context.spacing)
        neighbors = [around.changed(image, key, draw) for draw in range(self.draws)]
        tap = self._tap(context.engine)
        context.forwards += self.cost(context.engine)
        squares = torch.zeros(self.draws + 1, dtype=torch.float64)
        for images, weights in _calls(context.engine, tap, [image, *neighbors]):
            squares += _squares(context.engine, tap, images, weights)
        if not float(squares[0]):
            raise Undefined(f"{_in_words(tap)} is 0 for this image")
        changes = (squares[1:] / squares[0]).sqrt().tolist()
        return RepresentationChanges(_in_words(tap), tuple(changes))

    def _tap(self, context: Context) -> Tap:
        if self.layer is not None:
            return context.layers.taps((self.layer,))[0]
        return _last_input(context)


def _last_input(context: Context) -> Tap:
    """What enters the last layer with weights from which the explained output is computed."""
    for path in reversed(stages(context.model, context.example)):
        if _reaches_output(context, path):
            return Tap(path, "input")
    raise Undefined("no layer with weights has a tensor as its input; name a layer")


def _reaches_output(context: Context, path: str) -> bool:
    """Whether the explained output depends on a layer; it may not on auxiliary heads."""
    model, taps = context.model, (Tap(path, "input"), Tap(path))
    image = context.example.detach().clone().requires_grad_(model.differentiable)
    try:
        with torch.enable_grad(), model.at_rest(), tapping(model.network, taps) as tapped:
            output = model(image)
            _, activation = (tapped[tap] for tap in taps)
    except ModelError:  # what enters is no tensor, or nothing calls the layer as such
        return False
    if not output.requires_grad:
        return True
    if not activation.requires_grad:  # it does not depend on the image
        return False
    with gradient_failures_in_words():
        (gradient,) = torch.autograd.grad(output.sum(), activation, allow_unused=True)
    return gradient is not None


def _in_words(tap: Tap) -> str:
    layer = f"layer {tap.path!r}" if tap.path else "the network"
    return layer if tap.side == "output" else f"what enters {layer}"


def _calls(
    context: Context, tap: Tap, images: list[Tensor]
) -> Iterator[tuple[Iterator[Tensor], Tensor | None]]:
    """The inputs of one call of the network per image, and the weights of the layer's cells.

    One call, without weights, of networks that see whole images; one per batch of windows of the
    others.
    """
    layout = context.layout
    if layout is None:
        yield (image[None] for image in images), None
        return
    padded = [layout.pad(image) for image in images]
    for positions in layout.batches(context.model.windows_at_once):
        windows = (layout.cut(volume, positions) for volume in padded)
        yield windows, _cell_weights(layout, positions, context.layers.geometry(tap))


def _cell_weights(
    layout: Layout, positions: tuple[tuple[int, ...], ...], geometry: LayerGeometry
) -> Tensor:
    """Blending weights at the cells of a layer, ``(windows, 1, *cells)``; 0 in padding.

    A cell that several windows see counts once in total, as a voxel of the output does.
    """
    if not geometry.spatial:
        return torch.ones(len(positions), *(1,) * (1 + len(layout.size)), dtype=torch.float64)
    inside = layout.inside
    weights = torch.stack(
        [layout.weight(position) * inside[layout.box(position)] for position in positions]
    )
    grid = zip(geometry.start, geometry.stride, geometry.shape, layout.size, strict=True)
    for axis, (start, stride, cells, side) in enumerate(grid, start=1):
        voxels = (start + stride * torch.arange(cells, dtype=torch.float64)).round().long()
        weights = weights.index_select(axis, voxels.clamp(0, side - 1))
    return weights[:, None]


def _squares(
    context: Context, tap: Tap, images: Iterator[Tensor], weights: Tensor | None
) -> Tensor:
    """Sums of the squares of the first activation, and of its difference to each other one."""
    first: Tensor | None = None
    sums: list[float] = []
    for inputs in images:
        activation = _activation(context, tap, inputs, weights is not None)
        first = activation if first is None else first
        square = (activation - first if sums else activation).square()
        square = square if weights is None else square * weights.to(square)
        sums.append(float(square.sum(dtype=torch.float64)))
    return torch.tensor(sums, dtype=torch.float64)


def _activation(context: Context, tap: Tap, inputs: Tensor, on_grid: bool) -> Tensor:
    model = context.model
    with torch.inference_mode(), model.exact(), model.at_rest():
        with tapping(model.network, (tap,)) as tapped:
            model(inputs)
        activation: Tensor = tapped[tap]
        activation = context.layers.arranged(tap, activation) if on_grid else activation
    if not activation.is_floating_point():
        raise Undefined(f"{_in_words(tap)} holds no real numbers")
    return activation if activation.dtype is torch.float64 else activation.float()
