"""Directions in the space of the channels of a layer: read, intervened on, saved like units."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional

from voxplain.concepts.finding import Finding
from voxplain.concepts.non_negative import improved
from voxplain.engine.interventions import UnitSet
from voxplain.errors import InputError
from voxplain.records.atomic import atomic_write

Reading = Literal["linear", "top_k", "parts"]
"""How strongly a direction is present: a weighted sum of channels; of these the largest, where
positive; or shares of parts that add up to the activation, none of them negative."""

_ROUNDS, _CHANGE = 500, 1e-5


class DirectionsRecord(Finding):
    """What stands beside the tensors of saved directions.

    Attributes:
        layer: Path of the layer.
        names: Of the directions.
        reading: How they are read.
        active: How many of a ``top_k`` reading are not 0.
        found_by: In words.
    """

    layer: str
    names: tuple[str, ...]
    reading: Reading
    active: int
    found_by: str


@dataclass(frozen=True, eq=False)
class Directions:
    """Directions in the channel space of a layer, and how strongly each is present.

    Attributes:
        layer: Path of the layer.
        vectors: ``(D, K)`` of length 1, in units of the activations.
        readout: ``(D, K)``: reading d of an activation a is ``readout[d] (a - center) + offset[d]``
            before what :attr:`reading` makes of it.
        offset: ``(D,)``.
        center: ``(K,)``.
        names: Of the directions.
        reading: How they are read.
        active: How many of a ``top_k`` reading are not 0.
        found_by: In words.
    """

    layer: str
    vectors: Tensor
    readout: Tensor
    offset: Tensor
    center: Tensor
    names: tuple[str, ...]
    reading: Reading = "linear"
    active: int = 0
    found_by: str = ""

    @classmethod
    def linear(
        cls,
        layer: str,
        weights: Tensor,
        names: tuple[str, ...],
        offset: Tensor | None = None,
        found_by: str = "",
    ) -> Directions:
        """Weighted sums of channels, ``weights`` of ``(D, K)``."""
        none = weights.new_zeros(len(weights))
        center = weights.new_zeros(weights.shape[1])
        vectors = functional.normalize(weights, dim=1)
        offset = none if offset is None else offset
        return cls(layer, vectors, weights, offset, center, names, found_by=found_by)

    def __len__(self) -> int:
        return len(self.vectors)

    def encode(self, activation: Tensor) -> Tensor:
        """How strongly each direction is present, ``(D, ...)``, in an activation ``(K, ...)``."""
        flat = activation.reshape(len(activation), -1).T
        center, readout = self.center.to(flat), self.readout.to(flat)
        if self.reading == "parts":
            read = _parts(flat - center, self.vectors.to(flat))
        else:
            read = (flat - center) @ readout.T + self.offset.to(flat)
        if self.reading == "top_k":
            read = largest(read, self.active)
        return read.T.reshape(len(self), *activation.shape[1:])

    def decode(self, reading: Tensor) -> Tensor:
        """The activation ``(K, ...)`` that a reading ``(D, ...)`` stands for."""
        flat = reading.reshape(len(self), -1)
        decoded = self.vectors.to(flat).T @ flat + self.center.to(flat)[:, None]
        return decoded.reshape(-1, *reading.shape[1:])

    def units(self, *numbers: int) -> UnitSet:
        """Some of the directions as units that can be intervened on; all where none is named."""
        return UnitSet(directions=self.vectors[list(numbers)] if numbers else self.vectors)

    def save(self, path: str | Path) -> Path:
        """Writes the tensors (safetensors) and, beside them, what they are (JSON).

        Args:
            path: Ends in ``.safetensors``; the other file has the ending ``.json``.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise InputError(f"{path.name}: directions are saved as .safetensors")
        tensors = {name: getattr(self, name).contiguous() for name in _TENSORS}
        atomic_write(path, save(tensors))
        atomic_write(path.with_suffix(".json"), self.record.model_dump_json(indent=1) + "\n")
        return path

    @property
    def record(self) -> DirectionsRecord:
        """What they are, without the tensors."""
        return DirectionsRecord(
            layer=self.layer,
            names=self.names,
            reading=self.reading,
            active=self.active,
            found_by=self.found_by,
        )

    @classmethod
    def load(cls, path: str | Path) -> Directions:
        """Reads what :meth:`save` wrote.

        Raises:
            InputError: If one of the two files is missing, or they do not fit each other.
        """
        path = Path(path)
        try:
            tensors = load_file(path)
            record = DirectionsRecord(**json.loads(path.with_suffix(".json").read_text("utf-8")))
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(
                f"directions {path.name} cannot be read ({type(error).__name__}); they are a "
                ".safetensors file with a .json file of the same name beside it"
            ) from error
        if {*tensors} != {*_TENSORS} or len(tensors["vectors"]) != len(record.names):
            raise InputError(f"{path.name} and its .json file do not hold the same directions")
        vectors, readout, offset, center = (tensors[name] for name in _TENSORS)
        return cls(
            record.layer,
            vectors,
            readout,
            offset,
            center,
            record.names,
            record.reading,
            record.active,
            record.found_by,
        )


_TENSORS = ("vectors", "readout", "offset", "center")


def largest(values: Tensor, count: int) -> Tensor:
    """The largest ``count`` values of each row where they are positive, and 0 elsewhere."""
    kept = values.topk(min(count, values.shape[1]), dim=1)
    return torch.zeros_like(values).scatter(1, kept.indices, kept.values.relu())


def _parts(values: Tensor, parts: Tensor) -> Tensor:
    """Non-negative least squares, ``(N, D)``."""
    goal, gram = values @ parts.T, parts @ parts.T
    found = torch.zeros_like(goal)
    for _ in range(_ROUNDS):
        last, found = found, improved(found, goal, gram)
        if float((found - last).abs().max()) <= _CHANGE * float(found.max()):
            break
    return found
