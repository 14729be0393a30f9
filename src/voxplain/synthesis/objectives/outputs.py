"""Objectives about the output, sums of objectives, and what people write for an objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, SkipValidation, TypeAdapter, ValidationError
from torch import Tensor
from torch.nn import functional

from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError, TargetError
from voxplain.synthesis.objectives.base import Objective, typical_size
from voxplain.synthesis.objectives.layers import (
    ChannelActivation,
    DirectionActivation,
    LayerDiversity,
    LayerEnergy,
    MatchedActivation,
    NeuronActivation,
    StartLikeness,
)
from voxplain.synthesis.reading import Reading


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
        return typical_size(self.map(reading)[:, None])

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


def _ball(shape: Sequence[int], spacing: Sequence[float], radius: float) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for axis, (size, step) in enumerate(zip(shape, spacing, strict=True)):
        line = ((torch.arange(size, dtype=torch.float64) - (size - 1) / 2) * step).square()
        total = total + line.view(-1, *(1,) * (len(shape) - 1 - axis))
    return (total <= radius**2).double()
