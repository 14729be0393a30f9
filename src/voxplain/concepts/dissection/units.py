"""Units whose maps are compared with concepts: channels and directions of layers, modalities."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from voxplain.concepts.dissection.case_masks import Remarks
from voxplain.engine.cohort import CohortCase
from voxplain.engine.context import Context
from voxplain.engine.network_layers import NetworkLayers
from voxplain.engine.observation import Observation, observe
from voxplain.engine.taps import Tap
from voxplain.errors import ModelError
from voxplain.models.model import Model

Origin = Literal["layer", "input", "random"]
"""The network, the image itself, or a network with random weights."""

_VALUES_AT_ONCE = 2**21
"""Values of units that are looked at together: 8 MB."""
_FEWEST_UNITS = 8
_VOXELS_AT_ONCE = 2**13
"""Voxels that are interpolated together, so that their values stay in the cache."""


class UnitReading(Protocol):
    """What units of a layer are read as: some of its channels, or directions, however found."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the units, unique in their layer."""

    def encode(self, activation: Tensor) -> Tensor:
        """How strongly each unit is present, ``(units, ...)``, in an activation ``(K, ...)``."""


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
        placed: Their values in the image; None for a layer without places.
    """

    group: UnitGroup
    names: tuple[str, ...]
    pooled: Tensor
    placed: PlacedUnits | None

    def chunks(self, voxels: int) -> Iterator[slice]:
        """Some units after others; none where they have no places.

        Args:
            voxels: Whose values are wanted; decides how many units fit into memory together.
        """
        count = 0 if self.placed is None else len(self.names)
        size = max(_FEWEST_UNITS, _VALUES_AT_ONCE // max(1, voxels))
        for first in range(0, count, size):
            yield slice(first, min(first + size, count))

    def on_image(self, part: slice) -> Tensor:
        """Some units on the grid of the image, ``(k, *spatial)``, on the CPU."""
        assert self.placed is not None
        return self.placed.on_image(part)

    def at(self, part: slice, voxels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Some units at voxels of the flattened image, ``(k, voxels)``."""
        assert self.placed is not None
        return self.placed.at(part, voxels)


class PlacedUnits(ABC):
    """The units of one group in one image."""

    @abstractmethod
    def on_image(self, part: slice) -> Tensor:
        """Some units on the grid of the image, ``(k, *spatial)``, on the CPU."""

    def at(self, part: slice, voxels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Some units at voxels of the flattened image, ``(k, voxels)``."""
        flat: NDArray[np.float32] = self.on_image(part).flatten(1).numpy()
        return flat.take(voxels, axis=1)


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
        yield UnitMaps(UnitGroup("input"), names, pooled, _PlacedModalities(both))


@dataclass(frozen=True, eq=False)
class _PlacedModalities(PlacedUnits):
    """Channels of an image as units, ``(units, *spatial)``."""

    values: Tensor

    def on_image(self, part: slice) -> Tensor:
        return self.values[part]


class LayerUnits(UnitSource):
    """Channels of layers of a network, or directions in the space of their channels.

    Args:
        model: The network.
        layers: Paths; all convolutional stages, after the activation, if empty.
        units: For some layers, how they are read: which channels, or directions; all channels for
            the others.
        origin: Whether the network has its own weights or random ones.
    """

    def __init__(
        self,
        model: Model,
        layers: Sequence[str] = (),
        units: Mapping[str, UnitReading] | None = None,
        origin: Origin = "layer",
    ) -> None:
        self._model, self._paths, self._origin = model, tuple(layers), origin
        self._units = dict(units or {})
        self._taps: tuple[Tap, ...] | None = None
        self._layers: dict[object, NetworkLayers] = {}
        self._interpolation = _LastInterpolation()

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
        placed = _PlacedLayer(seen.layers, tap, values, self._interpolation)
        return UnitMaps(group, names, pooled, placed)

    def _in_units(self, tap: Tap, activation: Tensor) -> Tensor:
        units = self._units.get(tap.path)
        return activation if units is None else units.encode(activation)

    def _names(self, tap: Tap, count: int) -> tuple[str, ...]:
        units = self._units.get(tap.path)
        names = map(str, range(count)) if units is None else units.names
        return tuple(f"{tap.path}/{name}" for name in names)


def _without_places(layers: NetworkLayers, tap: Tap) -> str | None:
    """Why the units of a layer cannot be compared with parts of an image."""
    if not layers.geometry(tap).spatial:
        return f"layer {tap.path!r} has no places in the image"
    try:
        layers.placed_geometry(tap)
    except ModelError as error:
        return str(error)
    return None


@dataclass(frozen=True, eq=False)
class _PlacedLayer(PlacedUnits):
    """Units of a layer in one image.

    Attributes:
        layers: The network on the image.
        tap: The layer.
        values: ``(units, *cells)``; ``(units, windows, *cells)`` for a network with windows.
        interpolation: Of the layer before.
    """

    layers: NetworkLayers
    tap: Tap
    values: Tensor
    interpolation: _LastInterpolation

    def on_image(self, part: slice) -> Tensor:
        return self.layers.on_image(self.tap, self.values[part]).cpu().float()

    def at(self, part: slice, voxels: NDArray[np.int64]) -> NDArray[np.float32]:
        if self.layers.layout is not None:
            return super().at(part, voxels)
        matrix = self.interpolation.of(self.layers, self.tap, voxels)
        cells: NDArray[np.float32] = self.values[part].flatten(1).cpu().float().numpy()
        if matrix.nnz == len(voxels) and (matrix.data == 1).all():  # every voxel is a cell
            columns: NDArray[np.int32] = matrix.indices
            return np.take(cells, columns, axis=1)
        found = np.empty((len(cells), len(voxels)), dtype=np.float32)
        units_last = np.ascontiguousarray(cells.T)
        for first in range(0, len(voxels), _VOXELS_AT_ONCE):
            block = slice(first, first + _VOXELS_AT_ONCE)
            found[:, block] = (matrix[block] @ units_last).T
        return found


class _LastInterpolation:
    """The matrix from cells to voxels, kept for the next layer: it often has the same grid."""

    def __init__(self) -> None:
        self._key: object = None
        self._voxels: NDArray[np.int64] | None = None
        self._matrix: csr_array | None = None
        self._lock = threading.Lock()

    def of(self, layers: NetworkLayers, tap: Tap, voxels: NDArray[np.int64]) -> csr_array:
        geometry = layers.placed_geometry(tap)
        key = (layers.shape, geometry.start, geometry.stride, geometry.shape)
        with self._lock:
            if self._key != key or self._voxels is not voxels:
                self._matrix = layers.interpolation(tap, voxels)
                self._key, self._voxels = key, voxels
            return self._matrix
