"""What the viewers in the page need to know of a case, whatever its number of axes."""

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
    """Collects the layers of one case; ``data`` becomes JSON, encoded arrays become blobs.

    Args:
        view: Receives the blobs and a note on how they were made.
        shown: Image and masks, already cropped.
        cap: Elements that one embedded array may have.
    """

    kind: str

    def __init__(self, view: CaseView, shown: Backdrop, cap: int) -> None:
        self._view = view
        self._outlines: dict[tuple[str, bytes], int] = {}
        self._plan(shown, cap)
        self.data: dict[str, Any] = {"kind": self.kind, "ramps": ramps()}
        self.data |= {"maps": [], "outlines": []}
        self.data |= self._backdrop(shown)

    def add(self, view: MapView, scene: Overlay) -> None:
        """Adds one map with its channels."""
        limit = scene.limit or 1.0
        map = self._reduced(scene.map)
        layers: list[dict[str, str]] = []
        for name, values in channels(map, view.sidecar):
            text = self._encode(values, map, limit)
            layers.append({"name": name, "blob": self.blob(f"{view.id}-{len(layers)}", text)})
        facts: dict[str, Any] = {"id": view.id, "model": view.record.model, "title": view.title}
        facts |= {"limit": limit, "sign": view.sidecar.sign, "units": view.sidecar.units}
        facts |= {"start": self._start(scene), "outlines": self._lines(scene), "channels": layers}
        self.data["maps"].append(facts)

    def blob(self, name: str, text: str) -> str:
        """Stores an encoded array and gives the id of its element."""
        key = f"{self._view.slug}-{name}"
        self._view.blobs[key] = text
        return key

    def _lines(self, scene: Overlay) -> list[int]:
        """Which outlines belong to a map; each is encoded once."""
        found = []
        for kind, mask in (("prediction", scene.prediction), ("reference", scene.reference)):
            if mask is None:
                continue
            key = (kind, sha256(np.packbits(mask).tobytes()).digest())
            if key not in self._outlines:
                self._outlines[key] = len(self._outlines)
                text = self._outline(mask, scene.map)
                blob = self.blob(f"outline-{self._outlines[key]}", text)
                self.data["outlines"].append({"kind": kind, "blob": blob})
            found.append(self._outlines[key])
        return found

    @abstractmethod
    def _outline(self, mask: Array, map: DisplayVolume) -> str:
        """A mask ``(X, Y, Z)`` as text."""

    @abstractmethod
    def _plan(self, shown: Backdrop, cap: int) -> None:
        """Decides how far arrays are reduced."""

    @abstractmethod
    def _backdrop(self, shown: Backdrop) -> dict[str, Any]:
        """Encodes the image."""

    @abstractmethod
    def _reduced(self, map: DisplayVolume) -> DisplayVolume:
        """The map at the resolution of the page."""

    @abstractmethod
    def _encode(self, values: Array, map: DisplayVolume, limit: float) -> str:
        """One channel of a map as text."""

    @abstractmethod
    def _start(self, scene: Overlay) -> list[float]:
        """Where the viewer starts."""


def channels_of(sidecar: Sidecar) -> tuple[str, ...]:
    """Names of what a viewer shows of a map: the sum, then input channels one by one."""
    several = 1 < len(sidecar.channels) <= 8 and sidecar.layer is None
    return ("all channels", *sidecar.channels) if several else ("all channels",)


def channels(map: DisplayVolume, sidecar: Sidecar) -> list[tuple[str, Array]]:
    """The arrays ``(X, Y, Z)`` that belong to :func:`channels_of`."""
    names = channels_of(sidecar)
    arrays = [map.channel_sum(), *(map.data if len(names) > 1 else ())]
    return [(name, np.asarray(array)) for name, array in zip(names, arrays, strict=True)]
