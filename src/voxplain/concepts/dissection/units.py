"""Units whose maps are compared with concepts: channels and directions of layers, modalities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from voxplain.concepts.dissection.case_masks import Remarks
from voxplain.engine.cohort import CohortCase
from voxplain.engine.context import Context
from voxplain.engine.interventions import UnitSet
from voxplain.engine.network_layers import NetworkLayers
from voxplain.engine.observation import Observation, observe
from voxplain.engine.taps import Tap
from voxplain.errors import ModelError
from voxplain.models.model import Model

Origin = Literal["layer", "input", "random"]
"""The network, the image itself, or a network with random weights."""

_VALUES_AT_ONCE = 2**24
"""Values of placed maps that are in memory at once: 64 MB."""


@dataclass(frozen=True, order=True)
class UnitGroup:
    """Units that come together: those of one layer, or the modalities of an image.

    Attributes:
        origin: Where they come from.
        layer: Path of the layer; empty for modalities.
    """

    origin: Origin
    layer: str = ""


@dataclass(frozen=True, eq=False)
class UnitMaps:
    """The maps of the units of one group for one case.

    Attributes:
        group: Which units.
        names: One per unit.
        pooled: Maximum and mean over the cells, ``(2, units)``.
        place: Gives some units on the grid of the image, ``(k, *spatial)``; None without places.
    """

    group: UnitGroup
    names: tuple[str, ...]
    pooled: Tensor
    place: Callable[[slice], Tensor] | None

    def chunks(self, voxels: int) -> Iterator[tuple[slice, Tensor]]:
        """Placed maps of some units after others, on the CPU.

        Args:
            voxels: Of the image; decides how many units fit into memory together.
        """
        if self.place is None:
            return
        count, size = len(self.names), max(1, _VALUES_AT_ONCE // max(1, voxels))
        for first in range(0, count, size):
            part = slice(first, min(first + size, count))
            yield part, self.place(part)


class UnitSource(ABC):
    """Gives the maps of units, case after case."""

    @abstractmethod
    def of(self, case: CohortCase, remarks: Remarks) -> Iterator[UnitMaps]:
        """The groups of units for one case.

        Args:
            case: Whose image is looked at.
            remarks: Takes a sentence for each layer that has to be left out.
        """


class ModalityUnits(UnitSource):
    """Every channel of the image, bright and dark, as if it were a unit of the network."""

    def of(self, case: CohortCase, remarks: Remarks) -> Iterator[UnitMaps]:
        """One group, ``+flair`` and ``-flair`` for each channel."""
        data = case.image.data.cpu().float()
        both = torch.stack([data, -data], dim=1).flatten(0, 1)
        names = tuple(f"{sign}{name}" for name in case.image.channels for sign in "+-")
        flat = both.flatten(1)
        pooled = torch.stack([flat.amax(1), flat.mean(1)])
        yield UnitMaps(UnitGroup("input"), names, pooled, lambda part: both[part])


class LayerUnits(UnitSource):
    """Channels of layers of a network, or directions in the space of their channels.

    Args:
        model: The network.
        layers: Paths; all convolutional stages, after the activation, if empty.
        units: For some layers, which channels or directions; all channels for the others.
        origin: Whether the network has its own weights or random ones.
    """

    def __init__(
        self,
        model: Model,
        layers: Sequence[str] = (),
        units: Mapping[str, UnitSet] | None = None,
        origin: Origin = "layer",
    ) -> None:
        self._model, self._paths, self._origin = model, tuple(layers), origin
        self._units = dict(units or {})
        self._taps: tuple[Tap, ...] | None = None
        self._layers: dict[object, NetworkLayers] = {}

    def of(self, case: CohortCase, remarks: Remarks) -> Iterator[UnitMaps]:
        """One group per layer, of one forward without gradients."""
        context = Context.open(self._model, case.image)
        # Where cells lie depends on the shape alone, and is found once for it.
        shape = (context.inputs.shape, context.spacing)
        context.layers = self._layers.setdefault(shape, context.layers)
        seen = observe(context, self._chosen(context.layers))
        for tap in self._chosen(context.layers):
            yield self._group(tap, seen, remarks)

    def _chosen(self, layers: NetworkLayers) -> tuple[Tap, ...]:
        if self._taps is None:
            paths = (*self._paths, *self._units) or layers.stages
            if not paths:
                raise ModelError("the network has no convolution with places; name its layers")
            self._taps = layers.taps(tuple(dict.fromkeys(paths)))
        return self._taps

    def _group(self, tap: Tap, seen: Observation, remarks: Remarks) -> UnitMaps:
        values = self._in_units(tap, seen[tap])
        flat = values.flatten(1).cpu().float()
        pooled = torch.stack([flat.amax(1), flat.mean(1)])
        group, names = UnitGroup(self._origin, tap.path), self._names(tap, len(values))
        reason = _without_places(seen.layers, tap)
        if reason:
            remarks.append(f"{reason}; it is compared with facts of whole images alone")
            return UnitMaps(group, names, pooled, None)
        return UnitMaps(group, names, pooled, partial(_placed, seen.layers, tap, values))

    def _in_units(self, tap: Tap, activation: Tensor) -> Tensor:
        units = self._units.get(tap.path)
        if units is None:
            return activation
        if units.directions is None:
            return activation[list(units.channels)]
        return torch.einsum("dk,k...->d...", units.directions.to(activation), activation)

    def _names(self, tap: Tap, count: int) -> tuple[str, ...]:
        units = self._units.get(tap.path)
        if units is not None and units.directions is not None:
            return tuple(f"{tap.path}/direction {number}" for number in range(count))
        numbers = range(count) if units is None else units.channels
        return tuple(f"{tap.path}/{number}" for number in numbers)


def _without_places(layers: NetworkLayers, tap: Tap) -> str | None:
    """Why the units of a layer cannot be compared with parts of an image."""
    if not layers.geometry(tap).spatial:
        return f"layer {tap.path!r} has no places in the image"
    try:
        layers.placed_geometry(tap)
    except ModelError as error:
        return str(error)
    return None


def _placed(layers: NetworkLayers, tap: Tap, values: Tensor, part: slice) -> Tensor:
    return layers.on_image(tap, values[part]).cpu().float()
