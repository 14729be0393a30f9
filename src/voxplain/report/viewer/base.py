"""The data of an interactive viewer, common to 2-D and 3-D cases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.records.sidecar import Sidecar
from voxplain.report.case_view import CaseView, MapView
from voxplain.report.run_files import Backdrop
from voxplain.viz.embed import ramps
from voxplain.viz.overlay import Overlay
from voxplain.viz.volume import DisplayVolume

Array = NDArray[Any]


class Viewer(ABC):
    """Collects what the viewer of one case shows: ``data`` as JSON, encoded arrays as blobs.

    Args:
        view: Receives the blobs and a note on how they were made.
        backdrop: Image and masks, already cropped.
        cap: Elements of an embedded array at most.
    """

    kind: str

    def __init__(self, view: CaseView, backdrop: Backdrop, cap: int) -> None:
        self._view = view
        self._outlines: dict[tuple[str, bytes], int] = {}
        self._plan(backdrop, cap)
        self.data: dict[str, Any] = {"kind": self.kind, "ramps": ramps()}
        self.data |= {"maps": [], "outlines": []}
        self.data |= self._backdrop(backdrop)

    def add(self, view: MapView, overlay: Overlay) -> None:
        """Adds a map with its channels."""
        limit = overlay.limit or 1.0
        volume = self._reduced(overlay.map)
        layers: list[dict[str, str]] = []
        for name, values in channels(volume, view.sidecar):
            text = self._encode(values, volume, limit)
            layers.append({"name": name, "blob": self.blob(f"{view.id}-{len(layers)}", text)})
        facts: dict[str, Any] = {"id": view.id, "model": view.record.model, "title": view.title}
        facts |= {"limit": limit, "sign": view.sidecar.sign, "units": view.sidecar.units}
        facts |= {
            "start": self._start(overlay),
            "outlines": self._lines(overlay),
            "channels": layers,
        }
        self.data["maps"].append(facts)

    def blob(self, name: str, text: str) -> str:
        """Stores an encoded array and returns the id of its element."""
        key = f"{self._view.slug}-{name}"
        self._view.blobs[key] = text
        return key

    def _lines(self, overlay: Overlay) -> list[int]:
        """The numbers of the outlines of a map; equal outlines are encoded once."""
        numbers = []
        for kind, mask in (("prediction", overlay.prediction), ("reference", overlay.reference)):
            if mask is None:
                continue
            key = (kind, sha256(np.packbits(mask).tobytes()).digest())
            if key not in self._outlines:
                self._outlines[key] = len(self._outlines)
                text = self._outline(mask, overlay.map)
                blob = self.blob(f"outline-{self._outlines[key]}", text)
                self.data["outlines"].append({"kind": kind, "blob": blob})
            numbers.append(self._outlines[key])
        return numbers

    @abstractmethod
    def _outline(self, mask: Array, volume: DisplayVolume) -> str:
        """A mask ``(X, Y, Z)`` on the voxels of a volume, as text."""

    @abstractmethod
    def _plan(self, backdrop: Backdrop, cap: int) -> None:
        """Decides how much arrays are reduced to stay within the cap."""

    @abstractmethod
    def _backdrop(self, backdrop: Backdrop) -> dict[str, Any]:
        """The data of the image."""

    @abstractmethod
    def _reduced(self, volume: DisplayVolume) -> DisplayVolume:
        """A volume at the resolution of the page."""

    @abstractmethod
    def _encode(self, values: Array, volume: DisplayVolume, limit: float) -> str:
        """One channel ``(X, Y, Z)`` of a volume as text."""

    @abstractmethod
    def _start(self, overlay: Overlay) -> list[float]:
        """The position at which the viewer opens a map: its strongest voxel."""


def channels_of(sidecar: Sidecar) -> tuple[str, ...]:
    """Names of the channels that a viewer offers: the sum, then up to eight input channels."""
    several = 1 < len(sidecar.channels) <= 8 and sidecar.layer is None
    return ("all channels", *sidecar.channels) if several else ("all channels",)


def channels(volume: DisplayVolume, sidecar: Sidecar) -> list[tuple[str, Array]]:
    """Names and values ``(X, Y, Z)`` of the channels that a viewer offers."""
    names = channels_of(sidecar)
    arrays = [volume.channel_sum(), *(volume.data if len(names) > 1 else ())]
    return [(name, np.asarray(array)) for name, array in zip(names, arrays, strict=True)]
