"""What the figure of a map shows: planes through its strongest voxel, projections, channels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.viz import colors
from voxplain.viz.overlay import VOID, Overlay, flat
from voxplain.viz.planes import PLANES, Plane, plane_of
from voxplain.viz.words import coordinate

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of a figure.

    Attributes:
        background: ``(rows, columns)`` or ``(rows, columns, 3)`` in 0 to 1.
        size: Width and height in mm, or in pixels of a picture.
        caption: The line below.
        values: The map ``(rows, columns)``; None shows the background alone.
        limit: Magnitude at which the colors of the map saturate.
        sign: What the sign of the map means.
        threshold: Share of the limit below which the map is not shown.
        letters: Directions in the patient at the left, right, top and bottom; empty without.
        prediction: Mask ``(rows, columns)`` drawn as a solid outline.
        reference: Mask ``(rows, columns)`` drawn as a dashed outline.
        crosshair: Row and column of the strongest voxel, where it is marked.
        smooth: Whether enlarged voxels are interpolated.
    """

    background: Array
    size: tuple[float, float]
    caption: str
    values: Array | None = None
    limit: float = 1.0
    sign: colors.Sign = "signed"
    threshold: float = colors.THRESHOLD
    letters: tuple[str, ...] = ()
    prediction: Array | None = None
    reference: Array | None = None
    crosshair: tuple[int, int] | None = None
    smooth: bool = False

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.size[0] / self.size[1]

    @property
    def picture(self) -> Array:
        """Colors ``(rows, columns, 3)`` in 0 to 1."""
        background = self.background
        if background.ndim == 2:
            background = background[..., None].repeat(3, axis=-1)
        if self.values is None:
            return background
        overlay = colors.colorize(self.values, self.limit, self.sign, self.threshold)
        return colors.blend(background, overlay)

    @property
    def key(self) -> str:
        """The hash of all that decides how the panel looks."""
        digest = sha256()
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                digest.update(repr((value.shape, value.dtype.str)).encode())
                digest.update(value.tobytes())
            else:
                digest.update(repr(value).encode())
        return digest.hexdigest()


def panels(overlay: Overlay) -> list[list[Panel]]:
    """The panels of the figure of a map, row by row.

    Of a volume these are three planes through the strongest voxel and, below, projections of the
    largest magnitude with its sign; of a picture the image, the overlay and the map alone. Several
    channels follow in a row of their own. All panels but the projections share one color scale.
    """
    if overlay.map.planar:
        plane = None if overlay.map.picture else plane_of(overlay.map.shape)
        return [_picture_row(overlay, plane), *_channel_row(overlay, plane)]
    planes = [_cut(overlay, plane) for plane in PLANES]
    projections = [_projection(overlay, plane) for plane in PLANES]
    return [planes, projections, *_channel_row(overlay, PLANES[0])]


def _picture_row(overlay: Overlay, plane: Plane | None) -> list[Panel]:
    values = flat(overlay.map, overlay.map.channel_sum())
    plain = Panel(
        flat(overlay.map, overlay.picture()),
        _size(overlay, plane),
        "image",
        limit=overlay.limit or 1.0,
        sign=overlay.sign,
        letters=plane.sides if plane else (),
    )
    prediction, reference = _outlines(overlay, plane)
    backdrop, void = flat(overlay.map, overlay.backdrop), np.full(values.shape, VOID)
    return [
        replace(plain, prediction=prediction, reference=reference),
        replace(plain, background=backdrop, caption="image and map", values=values),
        replace(plain, background=void, caption="map alone", values=values),
    ]


def _cut(overlay: Overlay, plane: Plane) -> Panel:
    prediction, reference = _outlines(overlay, plane)
    return Panel(
        _on(overlay, plane, overlay.backdrop),
        _size(overlay, plane),
        _cut_caption(overlay, plane),
        _on(overlay, plane, overlay.map.channel_sum()),
        overlay.limit or 1.0,
        overlay.sign,
        letters=plane.sides,
        prediction=prediction,
        reference=reference,
        crosshair=plane.pixel(overlay.peak, overlay.map.shape),
        smooth=True,
    )


def _cut_caption(overlay: Overlay, plane: Plane) -> str:
    """Which plane it is; of a tilted scan its coordinate changes along the plane."""
    position = coordinate(overlay.map.world(overlay.peak)[plane.axis])
    place = f"{plane.coordinate} = {position} {overlay.map.unit}"
    tilt = overlay.map.tilt
    return (
        f"{plane.name}, tilted {tilt:.0f}°, at {place}" if tilt >= 1 else f"{plane.name}, {place}"
    )


def _projection(overlay: Overlay, plane: Plane) -> Panel:
    return Panel(
        plane.show(overlay.backdrop.mean(axis=plane.axis) * 0.6),
        _size(overlay, plane),
        f"{plane.name}, strongest along {plane.coordinate}",
        plane.show(overlay.projections[plane.axis]),
        overlay.projection_limit,
        overlay.sign,
        threshold=0.2,
        letters=plane.sides,
        smooth=True,
    )


def _channel_row(overlay: Overlay, plane: Plane | None) -> list[list[Panel]]:
    """A row with the channels, the four strongest of many; none where there is one channel."""
    count = len(overlay.map.data)
    if count == 1:
        return []
    share = np.abs(np.nan_to_num(overlay.map.data)).sum(axis=(1, 2, 3))
    chosen = sorted(np.argsort(share)[::-1][:4]) if count > 4 else range(count)
    return [[_channel(overlay, plane, int(index)) for index in chosen]]


def _channel(overlay: Overlay, plane: Plane | None, index: int) -> Panel:
    names = overlay.map.channels
    return Panel(
        _on(overlay, plane, overlay.gray(index)),
        _size(overlay, plane),
        names[index] if index < len(names) else f"channel {index}",
        _on(overlay, plane, overlay.map.data[index]),
        overlay.limit or 1.0,
        overlay.sign,
        letters=plane.sides if plane else (),
        smooth=not overlay.map.planar,
    )


def _on(overlay: Overlay, plane: Plane | None, values: Array) -> Array:
    """The values on the plane through the strongest voxel, as displayed."""
    if plane is None or overlay.map.planar:
        return flat(overlay.map, values)
    return plane.cut(values, overlay.peak[plane.axis])


def _outlines(overlay: Overlay, plane: Plane | None) -> tuple[Array | None, Array | None]:
    """Prediction and reference on the plane; None where the plane holds no border of them."""
    masks = (overlay.prediction, overlay.reference)
    prediction, reference = (None if mask is None else _on(overlay, plane, mask) for mask in masks)
    return _with_border(prediction), _with_border(reference)


def _with_border(mask: Array | None) -> Array | None:
    return None if mask is None or mask.min() == mask.max() else mask


def _size(overlay: Overlay, plane: Plane | None) -> tuple[float, float]:
    across, up = (1, 0) if plane is None else plane.axes
    size = np.array(overlay.map.shape) * overlay.map.spacing
    return float(size[across]), float(size[up])
