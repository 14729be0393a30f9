"""Objectives about a layer: units, directions, its energy, and likeness to another image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Literal

import torch
from pydantic import Field, SkipValidation
from torch import Tensor
from torch.nn import functional

from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError, ModelError
from voxplain.synthesis.objectives.base import Objective, typical_size
from voxplain.synthesis.reading import Reading, at_cell

_LEAST_COSINE = 0.1
"""Below it the cosine of a direction counts as this, so that there is always a gradient."""


class _AtLayer(Objective):
    """An objective about one layer.

    Attributes:
        layer: Path as in ``get_submodule``.
    """

    layer: str

    @property
    def taps(self) -> tuple[Tap, ...]:
        return (Tap(self.layer),)

    def _cells(self, reading: Reading) -> Tensor:
        """``(B, K, *cells)``."""
        return reading.values[Tap(self.layer)]

    def typical(self, reading: Reading) -> Tensor:
        """The root of the mean square of the whole layer; 1 where all of it is 0."""
        return typical_size(self._cells(reading))

    @property
    def slug(self) -> str:
        return self.layer

    def _nearest_cell(self, reading: Reading, position: Sequence[int] | None) -> tuple[int, ...]:
        """The cell whose place is nearest to a voxel, the center of the image by default."""
        geometry = reading.layers.placed_geometry(Tap(self.layer))
        shape = reading.layers.shape
        voxel = [(size - 1) / 2 for size in shape] if position is None else position
        if len(voxel) != len(shape):
            raise ConfigError(
                f"a position of {len(voxel)} numbers for an image with {len(shape)} axes"
            )
        axes = zip(voxel, geometry.start, geometry.stride, geometry.shape, strict=True)
        return tuple(
            min(max(math.floor((place - start) / stride + 0.5), 0), cells - 1)
            for place, start, stride, cells in axes
        )


class ChannelActivation(_AtLayer):
    """Mean activation of a channel over all cells.

    Attributes:
        channel: Its number.
    """

    kind: Literal["channel"] = "channel"
    channel: int = Field(ge=0)

    def map(self, reading: Reading) -> Tensor:
        cells = self._cells(reading)
        if self.channel >= cells.shape[1]:
            raise ModelError(
                f"layer {self.layer!r} has {cells.shape[1]} channels, numbered from 0; there is "
                f"no channel {self.channel}"
            )
        return cells[:, self.channel]

    def value(self, reading: Reading) -> Tensor:
        return self.map(reading).flatten(1).mean(dim=1)

    @property
    def slug(self) -> str:
        return f"{self.layer}:{self.channel}"


class NeuronActivation(ChannelActivation):
    """Activation of a channel in one cell.

    Attributes:
        position: The voxel of the image whose nearest cell is meant; its center if None.
    """

    kind: Literal["neuron"] = "neuron"  # type: ignore[assignment]
    position: tuple[int, ...] | None = None

    def value(self, reading: Reading) -> Tensor:
        cell = self._nearest_cell(reading, self.position)
        return at_cell(self.map(reading), cell)

    @property
    def slug(self) -> str:
        where = "center" if self.position is None else "-".join(map(str, self.position))
        return f"{self.layer}:{self.channel}@{where}"


class DirectionActivation(_AtLayer):
    """Activation along a direction in channel space: dot * cosine^power.

    Attributes:
        direction: ``(K,)``.
        power: Of the cosine: the larger, the purer the direction; 0 is a linear unit.
        where: Mean over all cells, or the cell at the center.
        title: Short name for keys and files.
    """

    kind: Literal["direction"] = "direction"
    direction: Annotated[tuple[float, ...] | Tensor, SkipValidation]
    power: float = Field(default=1.0, ge=0)
    where: Literal["everywhere", "center"] = "everywhere"
    title: str = "direction"

    @cached_property
    def _vector(self) -> Tensor:
        return torch.as_tensor(self.direction, dtype=torch.float64)

    def map(self, reading: Reading) -> Tensor:
        cells = self._cells(reading)
        vector = self._vector.to(cells)
        if cells.shape[1] != len(vector):
            raise ModelError(
                f"a direction of {len(vector)} numbers for layer {self.layer!r} with "
                f"{cells.shape[1]} channels"
            )
        dot: Tensor = torch.einsum("k,bk...->b...", vector, cells)
        if not self.power:
            return dot
        lengths = vector.norm() * (cells.square().sum(dim=1) + 1e-12).sqrt()
        cosine = dot / (lengths + 1e-12)
        scaled: Tensor = dot * cosine.clamp_min(_LEAST_COSINE) ** self.power
        return scaled

    def value(self, reading: Reading) -> Tensor:
        found = self.map(reading)
        if self.where == "center":
            return at_cell(found, self._nearest_cell(reading, None))
        return found.flatten(1).mean(dim=1)

    @property
    def slug(self) -> str:
        return f"{self.layer}:{self.title}"


class LayerEnergy(_AtLayer):
    """Mean square of all activations of a layer, as DeepDream maximizes it."""

    kind: Literal["layer_energy"] = "layer_energy"

    def typical(self, reading: Reading) -> Tensor:
        return super().typical(reading).square()

    def value(self, reading: Reading) -> Tensor:
        return self._cells(reading).square().flatten(1).mean(dim=1)

    def map(self, reading: Reading) -> Tensor:
        return self._cells(reading).square().mean(dim=1)


class MatchedActivation(_AtLayer):
    """-||A(u) - A(x)||^2 / ||A(x)||^2: how near the activations of a layer are to given ones.

    Attributes:
        reference: A(x), ``(K, *cells)``.
    """

    kind: Literal["match"] = "match"
    reference: Annotated[Tensor, SkipValidation]

    def typical(self, reading: Reading) -> Tensor:
        return Objective.typical(self, reading)

    def value(self, reading: Reading) -> Tensor:
        cells = self._cells(reading)
        given = self.reference.to(cells)
        distance = (cells - given).square().flatten(1).sum(dim=1)
        return -distance / given.square().sum().clamp_min(1e-12)


class StartLikeness(_AtLayer):
    """-||A(x) - A(x0)|| / ||A(x0)||: how near a layer stays to what it was at the start."""

    kind: Literal["likeness"] = "likeness"

    @property
    def compares(self) -> bool:
        return True

    def typical(self, reading: Reading) -> Tensor:
        return Objective.typical(self, reading)

    def value(self, reading: Reading) -> Tensor:
        if reading.start is None:
            raise ConfigError("likeness to the start needs an image to start from")
        cells, first = self._cells(reading), self._cells(reading.start).detach()
        distance = (cells - first).square().flatten(1).sum(dim=1)
        size = first.square().flatten(1).sum(dim=1).clamp_min(1e-12)
        return -((distance / size + 1e-12).sqrt() - 1e-6)


class LayerDiversity(_AtLayer):
    """How much the images of one unit differ: minus the mean cosine of their Gram matrices.

    Of images that belong together; with one image it is 0.
    """

    kind: Literal["diversity"] = "diversity"

    def typical(self, reading: Reading) -> Tensor:
        return Objective.typical(self, reading)

    def value(self, reading: Reading) -> Tensor:
        cells = self._cells(reading).flatten(2)
        count = len(cells)
        if count < 2:
            return cells.sum(dim=(1, 2)) * 0
        grams = functional.normalize((cells @ cells.transpose(1, 2)).flatten(1), dim=1)
        cosines = grams @ grams.T
        return -(cosines.sum(dim=1) - cosines.diagonal()) / (count - 1)
