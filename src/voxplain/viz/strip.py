"""A strip of panels: an image, maps that follow each other, and what the network answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from voxplain.viz.caption import with_caption
from voxplain.viz.colors import Sign
from voxplain.viz.drawing import PAPER, QUIET, Sheet, fitted
from voxplain.viz.figures import draw_panel
from voxplain.viz.overlay import Overlay, flat
from voxplain.viz.panels import Panel
from voxplain.viz.planes import PLANES, Plane, plane_of
from voxplain.viz.volume import DisplayVolume

Array = NDArray[Any]
_SIDE, _GAP, _HEAD, _FOOT, _COLUMN, _TALLEST = 23, 26, 62, 20, 200, 260
"""Points: margin, gap, room above and below a panel, width of a column, height of a panel."""
_PIXELS = 1.5
"""Of a point."""


@dataclass(frozen=True, eq=False)
class StripStep:
    """One column of a strip.

    Attributes:
        title: The line above.
        subtitle: The line below it.
        map: Drawn over the image; None for the image alone.
        prediction: Mask drawn as a solid outline.
        reference: Mask drawn as a dashed outline.
    """

    title: str
    subtitle: str = ""
    map: DisplayVolume | None = None
    prediction: DisplayVolume | None = None
    reference: DisplayVolume | None = None


def strip_panels(
    image: DisplayVolume, steps: Sequence[StripStep], place: tuple[int, int, int]
) -> list[list[Panel]]:
    """Panels of a strip, row by row: three planes through a voxel, or the picture.

    Args:
        image: On canonical axes, like all maps and masks; its first channel is shown.
        steps: The columns.
        place: Index of the voxel.
    """
    planes: Sequence[Plane | None] = PLANES
    if image.planar:
        planes = (None if image.picture else plane_of(image.shape),)
    backdrop = Overlay(map=replace(image, data=image.data[:1]), image=image)
    overlays = [None if step.map is None else Overlay(map=step.map) for step in steps]
    return [
        [
            _panel(backdrop, step, overlay, plane, place)
            for step, overlay in zip(steps, overlays, strict=True)
        ]
        for plane in planes
    ]


def _panel(
    backdrop: Overlay,
    step: StripStep,
    overlay: Overlay | None,
    plane: Plane | None,
    place: tuple[int, int, int],
) -> Panel:
    def cut(values: Array) -> Array:
        if plane is None or backdrop.map.planar:
            return flat(backdrop.map, values)
        return plane.cut(values, place[plane.axis])

    size = np.array(backdrop.map.shape) * backdrop.map.spacing
    across, up = (1, 0) if plane is None else plane.axes
    gray = backdrop.picture() if step.map is None else backdrop.backdrop
    masks = (step.prediction, step.reference)
    cuts = (None if mask is None else cut(mask.data[0]) for mask in masks)
    prediction, reference = map(_with_border, cuts)
    values = None if step.map is None else cut(step.map.data[0])
    return Panel(
        cut(gray),
        (float(size[across]), float(size[up])),
        "" if plane is None else plane.name,
        values,
        (overlay.limit if overlay else None) or 1.0,
        sign_of(step.map),
        letters=() if plane is None else plane.sides,
        prediction=prediction,
        reference=reference,
        smooth=True,
    )


def _with_border(mask: Array | None) -> Array | None:
    return None if mask is None or mask.min() == mask.max() else mask


def sign_of(volume: DisplayVolume | None) -> Sign:
    """Whether a map has negative values."""
    has_negative = volume is not None and bool(np.nanmin(volume.data) < 0)
    return "signed" if has_negative else "positive"


def strip_picture(
    image: DisplayVolume,
    steps: Sequence[StripStep],
    place: tuple[int, int, int],
    texts: Sequence[str] = (),
) -> Image.Image:
    """The strip as a picture, with paragraphs below."""
    rows = strip_panels(image, steps, place)
    heights = [min(_TALLEST, _COLUMN / min(panel.aspect for panel in row)) for row in rows]
    width = 2 * _SIDE + len(steps) * _COLUMN + (len(steps) - 1) * _GAP
    sheet = Sheet(width, _HEAD + sum(heights) + _FOOT * len(rows) + 12, _PIXELS)
    for number, step in enumerate(steps):
        _draw_heads(sheet, _left(number), step, is_last=number == len(steps) - 1)
    top = float(_HEAD)
    for row, height in zip(rows, heights, strict=True):
        for number, panel in enumerate(row):
            wide = min(_COLUMN, height * panel.aspect)
            left = _left(number) + (_COLUMN - wide) / 2
            draw_panel(sheet, panel, (left, top, wide, wide / panel.aspect), _COLUMN)
        top += height + _FOOT
    return with_caption(sheet.image, texts) if texts else sheet.image


def _left(number: int) -> float:
    return _SIDE + number * (_COLUMN + _GAP)


def _draw_heads(sheet: Sheet, left: float, step: StripStep, *, is_last: bool) -> None:
    middle = left + _COLUMN / 2
    for text, y, color, size in ((step.title, 22, PAPER, 15), (step.subtitle, 44, QUIET, 12)):
        line, letters = fitted(text, size, _COLUMN)
        sheet.text((middle, y), line, color, letters, "center")
    if not is_last:
        sheet.text((left + _COLUMN + _GAP / 2, 22), "→", PAPER, 15, "center")
