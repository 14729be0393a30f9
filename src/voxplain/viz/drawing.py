"""Drawing on a dark sheet of pixels: text, pictures, outlines and lines."""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Array = NDArray[Any]

INK = "#0d0f12"
PAPER = "#e9e7e2"
QUIET = "#a3a19b"

_ANCHORS = {"left": "lm", "center": "mm", "right": "rm"}
_DASH = 5
"""Pixels of a dash, and of the gap after it, along rows and columns."""


Box = tuple[float, float, float, float]
"""Left, top, width and height in points."""


class Sheet:
    """A picture to draw on.

    Args:
        width: In points; positions and sizes are in points from the upper left corner.
        height: In points.
        scale: Pixels of a point.
    """

    def __init__(self, width: float, height: float, scale: float = 1.0) -> None:
        self._scale = scale
        self.image = Image.new("RGB", (round(width * scale), round(height * scale)), INK)
        self._draw = ImageDraw.Draw(self.image)

    def text(
        self,
        at: tuple[float, float],
        text: str,
        color: str,
        size: int,
        side: str = "left",
        bold: bool = False,
    ) -> None:
        """One line, vertically centered, of which the left end, center or right end is there."""
        place = at[0] * self._scale, at[1] * self._scale
        font = _font(round(size * self._scale), bold)
        self._draw.text(place, text, fill=color, font=font, anchor=_ANCHORS[side])

    def picture(self, box: Box, colors: Array, smooth: bool) -> None:
        """Colors ``(rows, columns, 3)`` in 0 to 1 inside a box.

        Args:
            box: Where.
            colors: What.
            smooth: Interpolate between enlarged cells; otherwise they stay squares.
        """
        left, top, width, height = self._pixels(box)
        small = Image.fromarray(np.round(np.clip(colors, 0, 1) * 255).astype(np.uint8), "RGB")
        enlarged = width >= small.width and height >= small.height
        how = Image.Resampling.NEAREST if enlarged and not smooth else Image.Resampling.BILINEAR
        self.image.paste(small.resize((width, height), how), (left, top))

    def outline(self, box: Box, mask: Array, color: str, dashed: bool) -> None:
        """The line on which a mask ``(rows, columns)``, interpolated linearly, is one half."""
        left, top, width, height = self._pixels(box)
        small = Image.fromarray(np.asarray(mask, dtype=np.float32), "F")
        large = small.resize((width, height), Image.Resampling.BILINEAR)
        values = np.pad(np.asarray(large), 1, "edge")
        # The slope is needed near the line only, which saves most of the time.
        rows, columns = np.nonzero(np.abs(values[1:-1, 1:-1] - 0.5) < 0.49)
        if rows.size == 0:
            return
        down = (values[rows + 2, columns + 1] - values[rows, columns + 1]) / 2
        across = (values[rows + 1, columns + 2] - values[rows + 1, columns]) / 2
        slope = np.maximum(np.hypot(down, across), 1e-6)
        opacity = 0.8 * np.clip(1.1 - np.abs(values[rows + 1, columns + 1] - 0.5) / slope, 0, 1)
        if dashed:
            opacity *= (rows + columns) // _DASH % 2
        at = rows.min(), columns.min()
        line = np.zeros((int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1), np.uint8)
        line[rows - at[0], columns - at[1]] = 255 * opacity
        self._blend((left + int(at[1]), top + int(at[0])), color, line)

    def line(self, start: tuple[float, float], end: tuple[float, float], color: str) -> None:
        """A faint line, one pixel wide, to the right or down; none where it would run back."""
        x, y, right, bottom = (round(value * self._scale) for value in (*start, *end))
        if right >= x and bottom >= y:
            self._blend((x, y), color, np.full((bottom - y + 1, right - x + 1), 102, np.uint8))

    def _pixels(self, box: Box) -> tuple[int, int, int, int]:
        left, top, width, height = (round(value * self._scale) for value in box)
        return left, top, max(width, 1), max(height, 1)

    def _blend(self, at: tuple[int, int], color: str, opacity: Array) -> None:
        alpha = Image.fromarray(opacity, "L")
        self.image.paste(color, (*at, at[0] + alpha.width, at[1] + alpha.height), alpha)


def text_width(text: str, size: int) -> float:
    """The width of one line, in points."""
    return float(_font(size, False).getlength(text))


def fitted(text: str, size: int, width: float) -> tuple[str, int]:
    """A line and the size of its letters so that it has a width at most.

    Letters become up to a third smaller; of a line that is still longer the end is left out.
    """
    needed = text_width(text, size)
    if needed <= width:
        return text, size
    size = max(int(size * width / needed), round(0.67 * size))
    if text_width(text, size) <= width:
        return text, size
    while text and text_width(f"{text}…", size) > width:
        text = text[:-1].rstrip()
    return f"{text}…", size


def png(image: Image.Image) -> bytes:
    """A picture in RGB as PNG without metadata.

    Pillow tries all filters on every row; the difference to the row above alone takes half of the
    time and gives files of the same size.
    """
    pixels = np.asarray(image.convert("RGB")).reshape(image.height, -1)
    rows = np.empty((image.height, 1 + pixels.shape[1]), np.uint8)
    rows[:, 0] = 2
    rows[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


@lru_cache(maxsize=32)
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which has the minus signs and superscripts of numbers; it is in matplotlib."""
    package = find_spec("matplotlib")
    assert package is not None
    assert package.origin is not None
    fonts = Path(package.origin).parent / "mpl-data/fonts/ttf"
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(fonts / name, size, layout_engine=ImageFont.Layout.BASIC)
