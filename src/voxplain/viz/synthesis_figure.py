"""The figure of synthesized images: channels of pictures, planes and projections of volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.viz.colors import Sign
from voxplain.viz.figures import MapFigure
from voxplain.viz.overlay import flat
from voxplain.viz.panels import Panel
from voxplain.viz.planes import PLANES, Plane, plane_of
from voxplain.viz.scale import robust_limit, strongest
from voxplain.viz.volume import DisplayVolume
from voxplain.viz.words import coordinate

Array = NDArray[Any]

_ROWS, _CHANNELS = 8, 4
"""Images, and channels of each, that a figure shows at most."""


@dataclass(frozen=True, eq=False)
class SynthesizedView:
    """What a figure of synthesized images shows.

    Attributes:
        title: First line.
        subtitle: Second line.
        images: Names and volumes, on canonical axes or pictures.
        windows: Black and white point per channel.
        start: The image that they started from, drawn first, with the change to the first one.
        notes: Lines at the bottom.
    """

    title: str
    subtitle: str
    images: Sequence[tuple[str, DisplayVolume]]
    windows: Sequence[tuple[float, float]]
    start: DisplayVolume | None = None
    notes: Sequence[str] = ()


def synthesis_figure(view: SynthesizedView) -> MapFigure:
    """The figure, not yet drawn.

    Of a picture each row holds the channels of one image, of a volume three planes through its
    strongest voxel and a projection of the largest values, one row per channel. Where there is a
    start, it comes first, and a row shows the change from it in colors.
    """
    rows: list[list[Panel]] = []
    bar: tuple[Sign, float, str] | None = None
    if view.start is not None:
        rows += _rows(view, "start", view.start, _peak(view, view.images[0][1]))
    for name, volume in view.images[:_ROWS]:
        rows += _rows(view, name, volume, _peak(view, volume))
    if view.start is not None:
        change = view.images[0][1].data - view.start.data
        limit = robust_limit(change)
        bar = ("signed", limit, "change of intensity")
        rows += _change_rows(view, view.start, change, limit)
    ends = ("darker", "brighter")
    return MapFigure(view.title, view.subtitle, rows, bar, list(view.notes), ends)


def _peak(view: SynthesizedView, volume: DisplayVolume) -> tuple[int, ...]:
    """The voxel of the largest change, in intensity ranges; the center without a start."""
    if view.start is None:
        return tuple(size // 2 for size in volume.shape)
    spans = np.array([high - low for low, high in view.windows])[:, None, None, None]
    return strongest(np.abs((volume.data - view.start.data) / spans).sum(axis=0))


def _rows(
    view: SynthesizedView, name: str, volume: DisplayVolume, peak: tuple[int, ...]
) -> list[list[Panel]]:
    count = min(_CHANNELS, len(volume.data))
    if volume.planar:
        return [[_picture(view, name, volume, index) for index in range(count)]]
    return [_planes(view, name, volume, index, peak) for index in range(count)]


def _picture(view: SynthesizedView, name: str, volume: DisplayVolume, index: int) -> Panel:
    plane = None if volume.picture else plane_of(volume.shape)
    return Panel(
        flat(volume, _gray(view, volume, index)),
        _size(volume, plane),
        f"{name}, {_channel(volume, index)}",
        letters=plane.sides if plane else (),
        smooth=True,
    )


def _planes(
    view: SynthesizedView, name: str, volume: DisplayVolume, index: int, peak: tuple[int, ...]
) -> list[Panel]:
    gray = _gray(view, volume, index)
    cuts = [
        Panel(
            plane.cut(gray, peak[plane.axis]),
            _size(volume, plane),
            f"{name}, {_channel(volume, index)}, {plane.name}, {_place(volume, plane, peak)}",
            letters=plane.sides,
            smooth=True,
        )
        for plane in PLANES
    ]
    axial = PLANES[0]
    projection = Panel(
        axial.show(gray.max(axis=axial.axis)),
        _size(volume, axial),
        f"largest along {axial.coordinate}",
        letters=axial.sides,
        smooth=True,
    )
    return [*cuts, projection]


def _change_rows(
    view: SynthesizedView, start: DisplayVolume, change: Array, limit: float
) -> list[list[Panel]]:
    peak = _peak(view, view.images[0][1])
    rows = []
    for index in range(min(_CHANNELS, len(change))):
        gray, values = _gray(view, start, index) * 0.8, change[index]
        planes: Sequence[Plane | None] = PLANES
        if start.planar:
            planes = [None if start.picture else plane_of(start.shape)]
        rows.append(
            [
                Panel(
                    _on(start, plane, gray, peak),
                    _size(start, plane),
                    f"change of {_channel(start, index)}" + (f", {plane.name}" if plane else ""),
                    _on(start, plane, values, peak),
                    limit,
                    letters=plane.sides if plane else (),
                    smooth=True,
                )
                for plane in planes
            ]
        )
    return [[panel for row in rows for panel in row]] if start.planar else rows


def _on(volume: DisplayVolume, plane: Plane | None, values: Array, peak: tuple[int, ...]) -> Array:
    if plane is None or volume.planar:
        return flat(volume, values)
    return plane.cut(values, peak[plane.axis])


def _gray(view: SynthesizedView, volume: DisplayVolume, index: int) -> Array:
    low, high = view.windows[index]
    return np.asarray(np.clip((volume.data[index] - low) / max(high - low, 1e-12), 0, 1))


def _channel(volume: DisplayVolume, index: int) -> str:
    names = volume.channels
    return names[index] if index < len(names) else f"channel {index}"


def _place(volume: DisplayVolume, plane: Plane, peak: tuple[int, ...]) -> str:
    position = coordinate(float(volume.world(peak)[plane.axis]))
    return f"{plane.coordinate} = {position} {volume.unit}"


def _size(volume: DisplayVolume, plane: Plane | None) -> tuple[float, float]:
    across, up = (1, 0) if plane is None else plane.axes
    size = np.array(volume.shape) * volume.spacing
    return float(size[across]), float(size[up])
