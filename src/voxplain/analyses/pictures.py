"""Figures and numbers that pages of analyses share."""

from __future__ import annotations

import math
from pathlib import Path

from voxplain.records.analysis_page import PageFigure
from voxplain.records.atomic import atomic_write
from voxplain.records.names import safe
from voxplain.viz.drawing import png
from voxplain.viz.figures import MapFigure
from voxplain.viz.words import number


def kept_figure(folder: Path, name: str, figure: MapFigure, caption: str, alt: str) -> PageFigure:
    """Draws a figure into the folder of an analysis.

    Args:
        folder: Of the analysis.
        name: Of the file, without its ending.
        figure: What is drawn.
        caption: Below it on the page.
        alt: What it shows, for those who cannot see it.
    """
    file = f"{safe(name)}.png"
    atomic_write(folder / file, png(figure.draw()))
    return PageFigure(file=file, caption=caption, alt=alt)


def with_interval(value: float | None, interval: tuple[float, float] | None = None) -> str:
    """A number with its interval: ``0.61 (0.52 to 0.68)``; ``not defined`` without one."""
    if value is None or not math.isfinite(value):
        return "not defined"
    if interval is None:
        return number(value)
    low, high = interval
    return f"{number(value)} ({number(low)} to {number(high)})"


def counted(count: int, thing: str, things: str = "") -> str:
    """A number of things: ``1 unit``, ``3 units``."""
    return f"{count} {thing if count == 1 else things or f'{thing}s'}"
