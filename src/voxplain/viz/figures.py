"""The static figure of one map, laid out and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
from PIL import Image

from voxplain.viz import colors
from voxplain.viz.drawing import PAPER, QUIET, Box, Sheet, fitted, text_width
from voxplain.viz.overlay import Overlay
from voxplain.viz.panels import Panel, panels
from voxplain.viz.planes import plane_of
from voxplain.viz.words import number

PREDICTION = "#f4f4f0"
REFERENCE = "#79e0b0"

_REVISION = 1
"""Raised when equal maps are drawn in another way, so that kept figures are drawn again."""

# Points: width of the figure, margin, gap, and room for title, color scale and captions.
_WIDTH, _SIDE, _GAP, _HEAD, _FOOT, _CAPTION, _TALLEST = 1000, 23, 10, 78, 86, 30, 580
_SIZE = 13
_COARSE, _SCALE = 128, 1.3
"""Voxels of a panel along an axis beyond which a point has more pixels than one, and how many."""
_WIDE = 2.5
"""Width over height beyond which a panel has a row of its own."""


def map_figure(overlay: Overlay) -> MapFigure:
    """The figure of one map, not yet drawn."""
    rows = [part for row in panels(overlay) for part in _without_wide(row)]
    bar = (overlay.sign, overlay.limit or 1.0, overlay.units)
    return MapFigure(overlay.title, overlay.subtitle, rows, bar, _notes(overlay))


@dataclass(frozen=True, eq=False)
class MapFigure:
    """The figure of one map: its panels and texts, drawn when asked for.

    Attributes:
        title: First line.
        subtitle: Second line.
        rows: Panels from top to bottom.
        bar: Sign, limit and units of the color bar; None without one.
        notes: Lines at the bottom.
        ends: What both ends of the color bar mean, where they are no evidence.
    """

    title: str
    subtitle: str
    rows: list[list[Panel]]
    bar: tuple[colors.Sign, float, str] | None
    notes: list[str]
    ends: tuple[str, str] | None = None

    @property
    def key(self) -> str:
        """The hash of all that decides how the figure looks."""
        texts = [_REVISION, self.title, self.subtitle, self.bar, self.notes]
        texts += [self.ends] if self.ends else []
        keys = [[panel.key for panel in row] for row in self.rows]
        return sha256(repr((tuple(texts), keys)).encode()).hexdigest()

    @cached_property
    def boxes(self) -> list[list[Box]]:
        """Where the panels are."""
        boxes: list[list[Box]] = []
        top: float = _HEAD
        for row in self.rows:
            places = _row_boxes(row, top)
            boxes.append(places)
            top += max(height for _, _, _, height in places) + _CAPTION
        return boxes

    def draw(self) -> Image.Image:
        """The figure as a picture."""
        bottom = max(top + height for _, top, _, height in self.boxes[-1]) + _CAPTION
        cells = max(max(panel.background.shape[:2]) for row in self.rows for panel in row)
        sheet = Sheet(_WIDTH, bottom + _FOOT, _SCALE if cells > _COARSE else 1.0)
        for row, boxes in zip(self.rows, self.boxes, strict=True):
            for panel, box in zip(row, boxes, strict=True):
                draw_panel(sheet, panel, box, _caption_room(row))
        for text, y, color, size in ((self.title, 27, PAPER, 18), (self.subtitle, 53, QUIET, 14)):
            line, letters = fitted(text, size, _WIDTH - 2 * _SIDE)
            sheet.text((_SIDE, y), line, color, letters)
        for row_number, note in enumerate(self.notes):
            line, letters = fitted(note, _SIZE, 0.61 * _WIDTH)
            sheet.text((_SIDE, bottom + 18 + 21 * row_number), line, QUIET, letters)
        if self.bar is not None:
            _draw_bar(sheet, bottom, *self.bar, self.ends)
        return sheet.image


def _without_wide(row: list[Panel]) -> list[list[Panel]]:
    """The row, and below it a row for each very wide panel, beside which others would be tiny."""
    others = [panel for panel in row if panel.aspect <= _WIDE]
    wide = [[panel] for panel in row if panel.aspect > _WIDE]
    return [others, *wide] if others else wide


def _row_boxes(row: Sequence[Panel], top: float) -> list[Box]:
    """The boxes of panels side by side, as large as fits; none is closer than captions allow."""
    free = _WIDTH - 2 * _SIDE - _GAP * (len(row) - 1)
    captions = [min(text_width(panel.caption, _SIZE), _caption_room(row)) for panel in row]
    height = _row_height([panel.aspect for panel in row], captions, free)
    widths = [height * panel.aspect for panel in row]
    slots = [max(pair) for pair in zip(widths, captions, strict=True)]
    left = (_WIDTH - sum(slots) - _GAP * (len(row) - 1)) / 2
    boxes = []
    for width, slot in zip(widths, slots, strict=True):
        boxes.append((left + (slot - width) / 2, top, width, height))
        left += slot + _GAP
    return boxes


def _row_height(aspects: Sequence[float], captions: Sequence[float], free: float) -> float:
    """The height at which panels, each at least as wide as its caption, fill the free width."""
    narrow: set[int] = set()
    while len(narrow) < len(aspects):
        wide = [index for index in range(len(aspects)) if index not in narrow]
        height = (free - sum(captions[index] for index in narrow)) / sum(aspects[i] for i in wide)
        height = min(height, _TALLEST)
        more = {index for index in wide if height * aspects[index] < captions[index]}
        if not more:
            return height
        narrow |= more
    return _TALLEST


def _caption_room(row: Sequence[Panel]) -> float:
    """The width of a caption at most."""
    return (_WIDTH - 2 * _SIDE - _GAP * (len(row) - 1)) / len(row)


def draw_panel(sheet: Sheet, panel: Panel, box: Box, room: float) -> None:
    """Draws a panel in a box, with its outlines and letters, and a caption of some width below."""
    left, top, width, height = box
    sheet.picture(box, panel.picture, panel.smooth)
    if panel.prediction is not None:
        sheet.outline(box, panel.prediction, PREDICTION, dashed=False)
    if panel.reference is not None:
        sheet.outline(box, panel.reference, REFERENCE, dashed=True)
    if panel.crosshair is not None:
        _draw_crosshair(sheet, panel, box)
    _draw_letters(sheet, panel.letters, box)
    caption, size = fitted(panel.caption, _SIZE, room)
    sheet.text((left + width / 2, top + height + 13), caption, QUIET, size, "center")


def _draw_crosshair(sheet: Sheet, panel: Panel, box: Box) -> None:
    left, top, width, height = box
    row, column = panel.crosshair or (0, 0)
    rows, columns = panel.background.shape[:2]
    x, y = left + (column + 0.5) / columns * width, top + (row + 0.5) / rows * height
    gap = 0.045 * max(width, height)
    right, bottom = left + width - 1, top + height - 1
    for start, end in ((left, x - gap), (x + gap, right)):
        sheet.line((start, y), (end, y), PAPER)
    for start, end in ((top, y - gap), (y + gap, bottom)):
        sheet.line((x, start), (x, end), PAPER)


def _draw_letters(sheet: Sheet, letters: Sequence[str], box: Box) -> None:
    """The directions at the sides; those that would meet in a narrow panel are left out."""
    if not letters:
        return
    left, top, width, height = box
    x, y = left + width / 2, top + height / 2
    sides = [(left + 10, y), (left + width - 10, y)] if width >= 4 * _SIZE else []
    ends = [(x, top + 11), (x, top + height - 11)] if height >= 3 * _SIZE else []
    for place, letter in zip(sides, letters[:2], strict=False):
        sheet.text(place, letter, PAPER, _SIZE, "center", bold=True)
    for place, letter in zip(ends, letters[2:], strict=False):
        sheet.text(place, letter, PAPER, _SIZE, "center", bold=True)


def _draw_bar(
    sheet: Sheet,
    top: float,
    sign: colors.Sign,
    limit: float,
    units: str,
    ends: tuple[str, str] | None,
) -> None:
    left, width, y = 0.64 * _WIDTH, round(0.335 * _WIDTH), top + 27
    strip = colors.blend(np.full((1, width), 0.1), colors.color_bar(sign, limit, count=width)[None])
    sheet.picture((left, y, width, 13), strip, smooth=False)
    low = -limit if sign == "signed" else 0.0
    places = ((left, "left"), (left + width / 2, "center"), (left + width, "right"))
    for (x, side), value in zip(places, (low, (low + limit) / 2, limit), strict=True):
        sheet.text((x, y + 21), number(value), PAPER, _SIZE, side)
    meanings = {"signed": ("evidence against", "evidence for"), "positive": ("", "evidence for")}
    low_meaning, high_meaning = ends or meanings.get(sign, ("", "influence, either way"))
    sheet.text((left, y - 11), low_meaning, PAPER, _SIZE, "left")
    sheet.text((left + width, y - 11), high_meaning, PAPER, _SIZE, "right")
    text, size = fitted(units, _SIZE, width)
    sheet.text((left + width / 2, y + 40), text, QUIET, size, "center")


def _notes(overlay: Overlay) -> list[str]:
    mark = "±" if overlay.sign == "signed" else ""
    scale = (
        f"Colors saturate at {mark}{number(overlay.limit or 1.0)}, the 99.5th percentile of the map"
    )
    if not overlay.map.planar:
        scale += f" (projections: {mark}{number(overlay.projection_limit)})"
    lines = {"solid": overlay.prediction, "dashed": overlay.reference}
    names = {"solid": "prediction", "dashed": "reference"}
    notes = [_sides(overlay)] if not overlay.map.picture else []
    notes += [f"{style} line: {names[style]}" for style, mask in lines.items() if mask is not None]
    line = "; ".join(notes)
    second = f"{line[:1].upper()}{line[1:]}." if line else ""
    return [f"{scale}.", second, "Research use. Shows what the model used, not what is true."]


def _sides(overlay: Overlay) -> str:
    """Which side of the patient is at the left of the picture, in words."""
    if overlay.map.planar:
        return plane_of(overlay.map.shape).convention
    return "patient's right at the left of axial and coronal planes"
