"""Objectives: what an image is synthesized to drive, one number per image, maximized."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, SkipValidation, TypeAdapter, ValidationError
from torch import Tensor
from torch.nn import functional

from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError, ModelError, TargetError
from voxplain.synthesis.reading import Reading, at_cell

_LEAST_COSINE = 0.1
"""Below it the cosine of a direction counts as this, so that there is always a gradient."""


class Objective(BaseModel, ABC):
    """What is maximized: one number per image.

    Attributes:
        kind: Its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    kind: str

    @property
    def taps(self) -> tuple[Tap, ...]:
        """The layers that it is about."""
        return ()

    @property
    def compares(self) -> bool:
        """Whether it needs what the network makes of the image that was started from."""
        return False

    @abstractmethod
    def value(self, reading: Reading) -> Tensor:
        """The number of each image, ``(B,)``."""

    def map(self, reading: Reading) -> Tensor:
        """The number at every place, ``(B, *cells)``; ``(B,)`` for what has no places."""
        return self.value(reading)

    def peak(self, reading: Reading) -> Tensor:
        """The number at the place of each image where it is largest, ``(B,)``."""
        return self.map(reading).reshape(len(reading.output), -1).amax(dim=1)

    def typical(self, reading: Reading) -> Tensor:
        """A typical size of its values on some images, ``(B,)``; what penalties are relative to."""
        return torch.ones(len(reading.output), device=reading.output.device)

    @property
    @abstractmethod
    def slug(self) -> str:
        """A short name for keys and files."""


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
        return _size(self._cells(reading))

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


class ClassLogit(Objective):
    """Score of a class before softmax, minus the mean of the other classes.

    With one output channel it is that score, or its negative for class 0.

    Attributes:
        label: The class.
        region: ``(*spatial)`` on the grid of the synthesized image, over whose positions the mean
            is taken; None for all.
        center: Radius in mm around the center of the image instead, over which the mean is taken.
    """

    kind: Literal["logit"] = "logit"
    label: int = Field(ge=0)
    region: Annotated[Tensor | None, SkipValidation] = None
    center: float | None = Field(default=None, gt=0)
    spacing: tuple[float, ...] | None = None

    def map(self, reading: Reading) -> Tensor:
        output = reading.output
        classes = output.shape[1]
        if self.label >= max(classes, 2):
            raise TargetError(
                f"the network has {max(classes, 2)} classes, numbered from 0; there is no class "
                f"{self.label}"
            )
        if classes == 1:
            return output[:, 0] if self.label else -output[:, 0]
        own = output[:, self.label]
        return own - (output.sum(dim=1) - own) / (classes - 1)

    def value(self, reading: Reading) -> Tensor:
        found = self.map(reading)
        if found.ndim == 1:
            return found
        weights = self._weights(reading, tuple(found.shape[1:])).to(found)
        return (found * weights).flatten(1).sum(dim=1) / weights.sum()

    def typical(self, reading: Reading) -> Tensor:
        return _size(self.map(reading)[:, None])

    def _weights(self, reading: Reading, cells: tuple[int, ...]) -> Tensor:
        shape = reading.layers.shape
        if self.center is not None:
            region = _ball(shape, self.spacing or (1.0,) * len(shape), self.center)
        elif self.region is None:
            return torch.ones(cells)
        else:
            region = torch.as_tensor(self.region).double()
        if tuple(region.shape) != tuple(shape):
            raise TargetError(
                f"a region of shape {tuple(region.shape)} for a synthesized image of shape {shape}"
            )
        if tuple(region.shape) != cells:
            region = functional.interpolate(region[None, None], size=cells, mode="area")[0, 0]
        if not bool((region > 0).any()):
            raise TargetError("the region of the class is empty; choose one that holds voxels")
        return region

    @property
    def slug(self) -> str:
        return f"class-{self.label}"


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


class WeightedSum(Objective):
    """Several objectives, added up with weights.

    Attributes:
        terms: The objectives.
        weights: One each; 1 if empty.
        title: Short name for keys and files.
    """

    kind: Literal["sum"] = "sum"
    terms: tuple[AnyObjective, ...] = Field(min_length=1)
    weights: tuple[float, ...] = ()
    title: str | None = None

    def model_post_init(self, _: Any) -> None:
        """Raises a ConfigError if there are weights for some of the terms only."""
        if self.weights and len(self.weights) != len(self.terms):
            raise ConfigError(f"{len(self.weights)} weights for a sum of {len(self.terms)} terms")

    @property
    def taps(self) -> tuple[Tap, ...]:
        return tuple(dict.fromkeys(tap for term in self.terms for tap in term.taps))

    @property
    def compares(self) -> bool:
        return any(term.compares for term in self.terms)

    def value(self, reading: Reading) -> Tensor:
        return self._total([term.value(reading) for term in self.terms])

    def peak(self, reading: Reading) -> Tensor:
        return self._total([term.peak(reading) for term in self.terms])

    def typical(self, reading: Reading) -> Tensor:
        return self.terms[0].typical(reading)

    def _total(self, values: Sequence[Tensor]) -> Tensor:
        weights = self.weights or (1.0,) * len(values)
        parts = [weight * value for weight, value in zip(weights, values, strict=True)]
        return torch.stack(parts).sum(dim=0)

    @property
    def slug(self) -> str:
        return self.title or "+".join(term.slug for term in self.terms)


AnyObjective = Annotated[
    ChannelActivation
    | NeuronActivation
    | DirectionActivation
    | LayerEnergy
    | ClassLogit
    | MatchedActivation
    | StartLikeness
    | LayerDiversity
    | WeightedSum,
    Field(discriminator="kind"),
]
WeightedSum.model_rebuild()
_ADAPTER: TypeAdapter[Objective] = TypeAdapter(AnyObjective)

Asked = int | str | Mapping[str, Any] | Objective
"""What people write: a class number, ``layer:channel``, a layer, a mapping, or an objective."""


def parse_objective(asked: Asked) -> Objective:
    """An objective from what people write.

    A number is a class; ``enc2:7`` is channel 7 of layer ``enc2`` and ``enc2:7@center`` its cell at
    the center; ``enc2`` alone is the energy of the layer; a mapping has ``kind`` and parameters.

    Raises:
        ConfigError: In one sentence, if it is none of these.

    Example:
        >>> parse_objective("bottleneck:3").slug
        'bottleneck:3'
    """
    if isinstance(asked, Objective):
        return asked
    if isinstance(asked, int) and not isinstance(asked, bool):
        return ClassLogit(label=asked)
    if isinstance(asked, str):
        layer, _, unit = asked.rpartition(":")
        if not layer:
            return LayerEnergy(layer=asked)
        channel, _, where = unit.partition("@")
        if not channel.isdigit() or where not in ("", "center"):
            raise ConfigError(f"{asked!r} is no unit; write layer:channel or layer:channel@center")
        kind = NeuronActivation if where else ChannelActivation
        return kind(layer=layer, channel=int(channel))
    try:
        return _ADAPTER.validate_python(asked)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(f"unit {asked!r}: {place} {first['msg'].lower()}".strip()) from None


def _size(values: Tensor) -> Tensor:
    size = values.detach().square().flatten(1).mean(dim=1).sqrt()
    return torch.where(size > 0, size, 1.0)


def _ball(shape: Sequence[int], spacing: Sequence[float], radius: float) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for axis, (size, step) in enumerate(zip(shape, spacing, strict=True)):
        line = ((torch.arange(size, dtype=torch.float64) - (size - 1) / 2) * step).square()
        total = total + line.view(-1, *(1,) * (len(shape) - 1 - axis))
    return (total <= radius**2).double()
