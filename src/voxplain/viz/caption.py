"""Text burned into a picture, below what it shows."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from voxplain.viz.drawing import PAPER, Sheet, text_width

_WIDTH, _SIDE, _LINE, _SIZE = 1000, 23, 22, 14
"""Points: width of a picture, margin, height of a line and size of its letters."""
_ROOM = 0.97 * (_WIDTH - 2 * _SIDE)
"""For a line; enlarged letters may be a little wider than they are measured."""


def with_caption(picture: Image.Image, texts: Sequence[str]) -> Image.Image:
    """The picture with paragraphs below it, broken into lines that fit its width."""
    lines = [line for text in texts for line in _lines(text, _ROOM)]
    scale = picture.width / _WIDTH
    top = picture.height / scale
    sheet = Sheet(_WIDTH, top + _LINE * (len(lines) + 1), scale)
    sheet.image.paste(picture, (0, 0))
    for number, line in enumerate(lines):
        sheet.text((_SIDE, top + _LINE * (number + 0.5)), line, PAPER, _SIZE)
    return sheet.image


def _lines(text: str, room: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, _SIZE) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
