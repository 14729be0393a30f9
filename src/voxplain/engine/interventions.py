"""Units of a layer whose values are replaced during a forward; the network is never edited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from voxplain.engine.network_layers import NetworkLayers
from voxplain.engine.taps import Tap

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, eq=False)
class UnitSet:
    """Channels of a layer, or directions in the space of its channels.

    Attributes:
        channels: Their numbers.
        directions: ``(D, K)`` instead; they span the part of the activation that is meant.
    """

    channels: tuple[int, ...] = ()
    directions: Tensor | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the units, unique in their layer."""
        if self.directions is None:
            return tuple(map(str, self.channels))
        return tuple(f"direction {number}" for number in range(len(self.directions)))

    def encode(self, activation: Tensor) -> Tensor:
        """How strongly each unit is present, ``(units, ...)``, in an activation ``(K, ...)``."""
        if self.directions is None:
            return activation[list(self.channels)]
        return torch.einsum("dk,k...->d...", self.directions.to(activation), activation)

    def part_of(self, activation: Tensor) -> Tensor:
        """What lies in these units of an activation ``(K, ...)``, and 0 elsewhere."""
        if self.directions is None:
            part = torch.zeros_like(activation)
            part[list(self.channels)] = activation[list(self.channels)]
            return part
        basis = torch.linalg.qr(self.directions.to(activation).T).Q
        projection: Tensor = basis @ basis.T
        return torch.einsum("kj,j...->k...", projection, activation)

    def rest_of(self, activation: Tensor) -> Tensor:
        """What does not lie in these units."""
        return activation - self.part_of(activation)


@dataclass(frozen=True, eq=False)
class Replacement:
    """Other values for some units of a layer: do(C = r).

    Attributes:
        tap: The layer.
        units: Which units of it.
        values: The whole activation that theirs are taken from, ``(K, *cells)`` on any number of
            cells; ``(K, windows, *cells)`` for a network with windows.
        outside: Whether all *other* units are replaced instead of these.
    """

    tap: Tap
    units: UnitSet
    values: Tensor
    outside: bool = False

    def change(self, layers: NetworkLayers) -> Callable[[Tensor], Tensor]:
        """The value of the layer as a function of its value, for :func:`tapping`.

        Values without a place on the grid of the layer, such as class tokens, stay.
        """

        def changed(value: Tensor) -> Tensor:
            other = value.clone(memory_format=torch.contiguous_format)
            positions = layers.arranged(self.tap, memory_positions(other.shape)).to(other.device)
            arranged = layers.arranged(self.tap, value)
            given = resized(self.values.to(value), arranged.shape[2:])
            rows = [self.mixed(row, given) for row in arranged]
            other.view(-1)[positions.flatten()] = torch.stack(rows).flatten()
            return other

        return changed

    def mixed(self, own: Tensor, given: Tensor) -> Tensor:
        """An activation ``(K, *cells)`` with the units taken from another one of the same shape."""
        if self.units.directions is None:
            channels = list(self.units.channels)
            kept, taken = (given, own) if self.outside else (own, given)
            mixed = kept.clone()
            mixed[channels] = taken[channels]
            return mixed
        change = given - own
        return own + (self.units.rest_of(change) if self.outside else self.units.part_of(change))


def resized(values: Tensor, cells: Sequence[int]) -> Tensor:
    """An activation ``(K, *cells)`` on another number of cells, interpolated linearly."""
    if tuple(values.shape[1:]) == tuple(cells):
        return values
    mode = _LINEAR[len(cells)]
    return functional.interpolate(values[None], size=tuple(cells), mode=mode)[0]


@lru_cache(maxsize=4)
def memory_positions(shape: torch.Size) -> Tensor:
    """The position in memory of every element of a contiguous tensor."""
    return torch.arange(shape.numel()).view(shape)
