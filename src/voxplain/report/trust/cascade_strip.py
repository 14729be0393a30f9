"""The figure of a cascade: each map at every step of randomization, and how similar it stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from voxplain.records.cascades import MapRandomized, RandomizationRecord, similarities
from voxplain.report.trust.plot_frame import column_bounds, column_means, finite_mean
from voxplain.report.trust.randomization_summary import MEASURES
from voxplain.report.trust.score_index import map_label
from voxplain.viz import colors
from voxplain.viz.drawing import INK, PAPER, QUIET
from voxplain.viz.words import fixed, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[Any]

MOST = 9
"""Pictures in a row; of more steps some are left out evenly, never the first or the last."""

LINES = {
    "spearman": ("#f0efe9", "solid"),
    "spearman_absolute": ("#ffb866", "dotted"),
    "ssim": ("#6db3f2", "dashed"),
    "hog": ("#79e0b0", "dashdot"),
}

RANDOM = "random"
"""The name of the last step where it randomizes the whole network."""

_ORDERS = {
    "top_down": "Stages randomized from the output down, one more in every column",
    "bottom_up": "Stages randomized from the input up, one more in every column",
    "independent": "One stage randomized at a time, the others as trained",
}

_LONGEST = 24
"""Letters of a stage; longer names would reach into the title."""

_WIDEST = 155
"""Letters of the line below the title; a longer line has a smaller font."""

_REVISION = 1
"""Raised when equal cascades are drawn in another way, so that kept figures are drawn again."""

_DPI = 110

# Inches: width of the figure, room for labels and curves, gaps, margins.
_WIDTH, _LABEL, _CURVE, _GAP, _HEAD, _FOOT, _UNDER = 14.0, 1.55, 2.3, 0.06, 1.75, 1.0, 0.26


def cascade_strip(record: RandomizationRecord, pictures: Mapping[str, Array]) -> Figure:
    """A row per map with its pictures from the trained to the last network, and its curves.

    Args:
        record: The cascade.
        pictures: By map, ``(steps, rows, columns)``.

    Returns:
        The figure; no global state of matplotlib is touched.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layout = _StripLayout.of(record, pictures)
    figure = Figure(figsize=(_WIDTH, layout.height), dpi=_DPI, facecolor=INK)
    FigureCanvasAgg(figure)
    for row, randomized in enumerate(layout.maps):
        _row(figure, layout, row, randomized, pictures[randomized.method])
    _headings(figure, layout, record)
    _notes(figure, layout, pictures)
    return figure


def strip_picture(record: RandomizationRecord, pictures: Mapping[str, Array]) -> Image.Image:
    """The figure of a cascade as a picture."""
    figure = cascade_strip(record, pictures)
    figure.canvas.draw()
    canvas: Any = figure.canvas
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def strip_key(record: RandomizationRecord, pictures: Mapping[str, Array]) -> str:
    """The hash of all that decides how the figure looks."""
    digest = sha256(f"{_REVISION} {record.model_dump_json()}".encode())
    for name, values in sorted(pictures.items()):
        digest.update(repr((name, values.shape, values.dtype.str)).encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def alternative_text(record: RandomizationRecord) -> str:
    """What the figure shows, in words."""
    ends = []
    for randomized in record.maps:
        curves = similarities(randomized, "spearman")
        if curves.size:
            ends.append(f"{map_label(randomized.method)} {fixed(finite_mean(curves[:, -1]))}")
    return (
        f"Maps over {len(record.stages) - 1} steps of randomization. "
        f"Correlation with the trained network's map at the end: {', '.join(ends)}."
    )


def stage_name(paths: list[str]) -> str:
    """The layers that a step randomizes, as a short heading of a column."""
    if not paths:
        return "trained"
    names = paths[-1].replace("_conv", "").split(".")
    short = ".".join(names[-3:] if len(".".join(names[-3:])) <= 20 else names[-2:])
    others = "" if len(paths) == 1 else f" +{len(paths) - 1}"
    room = _LONGEST - len(others)
    return f"{short if len(short) <= room else short[: room - 1] + '…'}{others}"


def first_and_last_step(record: RandomizationRecord) -> tuple[str, str]:
    """Names of the first and last step; the last is random unless stages change one at a time."""
    return "trained", RANDOM if record.order != "independent" else "last stage"


@dataclass(frozen=True)
class _StripLayout:
    """The positions of pictures and curves, in inches.

    Attributes:
        maps: The maps with pictures, one per row.
        steps: The step of each column.
        cell: Width and height of a picture.
        height: Of the figure.
        ends: Names of the first and the last step.
    """

    maps: tuple[MapRandomized, ...]
    steps: tuple[int, ...]
    cell: tuple[float, float]
    height: float
    ends: tuple[str, str]

    @classmethod
    def of(cls, record: RandomizationRecord, pictures: Mapping[str, Array]) -> _StripLayout:
        maps = tuple(randomized for randomized in record.maps if randomized.method in pictures)
        count = len(record.stages)
        chosen = np.unique(np.linspace(0, count - 1, min(count, MOST)).round().astype(int))
        rows, columns = pictures[maps[0].method].shape[1:]
        aspect = columns / (rows * record.aspect)
        free = _WIDTH - _LABEL - _CURVE - 0.9
        width = min(free / len(chosen) - _GAP, 2.0 * aspect)
        cell = (width, width / aspect)
        height = _HEAD + len(maps) * (cell[1] + _UNDER) + _FOOT
        return cls(maps, tuple(chosen.tolist()), cell, height, first_and_last_step(record))

    @property
    def random(self) -> bool:
        """Whether the last step randomizes the whole network."""
        return self.ends[1] == RANDOM

    def box(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of a picture, as shares of the figure."""
        width, height = self.cell
        left = _LABEL + column * (width + _GAP)
        top = _HEAD + row * (height + _UNDER)
        bottom = 1 - (top + height) / self.height
        return left / _WIDTH, bottom, width / _WIDTH, height / self.height

    def curves(self, row: int) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of the curves at the end of a row."""
        _, bottom, _, height = self.box(row, 0)
        left = _LABEL + len(self.steps) * (self.cell[0] + _GAP) + 0.55
        return left / _WIDTH, bottom, min(_WIDTH - 0.35 - left, 2 * _CURVE) / _WIDTH, height


def _row(
    figure: Figure, layout: _StripLayout, row: int, randomized: MapRandomized, pictures: Array
) -> None:
    signed = similarities(randomized, "spearman")
    for column, step in enumerate(layout.steps):
        box = layout.box(row, column)
        axes = figure.add_axes(box)
        axes.set_axis_off()
        axes.imshow(_colored(pictures[step], randomized), interpolation="nearest", aspect="auto")
        value = fixed(finite_mean(signed[:, step])) if signed.size else ""
        middle = box[0] + box[2] / 2
        _write(figure, middle, box[1] - 0.13 / layout.height, value, PAPER, ha="center")
    left, bottom, _, height = layout.box(row, 0)
    name, control = map_label(randomized.method), "control" if randomized.control else ""
    offset = 0.1 / layout.height if control else 0.0
    right = left - 0.12 / _WIDTH
    _write(figure, right, bottom + height / 2 + offset, _in_lines(name), PAPER, 11, ha="right")
    _write(figure, right, bottom + height / 2 - offset, control, QUIET, ha="right")
    ends = layout.ends if row == len(layout.maps) - 1 else ()
    _curves(figure.add_axes(layout.curves(row)), randomized, ends)


def _colored(picture: Array, randomized: MapRandomized) -> Array:
    limit = float(np.quantile(np.abs(picture), 0.995)) or float(np.abs(picture).max()) or 1.0
    sign = randomized.sign if randomized.sign == "signed" else "positive"
    return colors.blend(np.zeros(picture.shape), colors.colorize(picture, limit, sign, 0.02))


def _curves(axes: Axes, randomized: MapRandomized, ends: Sequence[str]) -> None:
    axes.set_facecolor(INK)
    for measure, (color, style) in LINES.items():
        table = similarities(randomized, measure)
        if not table.size:
            continue
        steps = np.arange(table.shape[1])
        axes.fill_between(steps, *column_bounds(table), color=color, alpha=0.18, linewidth=0)
        axes.plot(steps, column_means(table), color=color, linestyle=style, linewidth=1.5)
        chance = [value for value in randomized.chance.get(measure, []) if value is not None]
        if chance:
            axes.plot([1.06 * steps[-1]], [np.mean(chance)], "_", color=color, markersize=11)
    axes.set_ylim(-1.05, 1.08)
    axes.set_yticks([-1, 0, 1], ["−1", "0", "1"])
    axes.set_xticks([0, table.shape[1] - 1] if ends else [], ends)
    if ends:
        first, last = axes.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")
    axes.axhline(0, color=QUIET, linewidth=0.6)
    axes.tick_params(colors=QUIET, labelsize=9, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "left")
        spine.set_color(QUIET)


def _headings(figure: Figure, layout: _StripLayout, record: RandomizationRecord) -> None:
    left = 0.25 / _WIDTH
    heading = "What is left of a map when the weights of the network are randomized"
    _write(figure, left, 1 - 0.3 / layout.height, heading, PAPER, 14.5)
    drawn, count = len(layout.steps) - 1, len(record.stages) - 1
    order = _ORDERS[record.order]
    order += f" ({drawn} of {count} steps are shown)" if drawn < count else ""
    line = f"case {record.case}  ·  model {record.model}  ·  {order}"
    size = min(11.0, 11.0 * _WIDEST / len(line))
    _write(figure, left, 1 - 0.6 / layout.height, line, QUIET, size)
    for column, step in enumerate(layout.steps):
        x, y, width, height = layout.box(0, column)
        name = stage_name(record.stages[step])
        position = (x + width * 0.3, y + height + 0.06 / layout.height)
        rotation: Any = {"rotation": 28, "rotation_mode": "anchor", "va": "bottom"}
        figure.text(
            *position, name, color=PAPER, fontsize=9.5, ha="left", parse_math=False, **rotation
        )


def _notes(figure: Figure, layout: _StripLayout, pictures: Mapping[str, Array]) -> None:
    left = 0.25 / _WIDTH
    bars = "; bar at the end, two random networks" * layout.random
    lines = [
        "Below each picture: rank correlation (signed) with the map of the trained network, the "
        f"mean of all seeds. Middle plane, first seed. Curves: band, all seeds{bars}.",
        f"Every picture has a color scale of its own{_weakening(layout, pictures)}. "
        "An edge detector does not use the network; a map that changes as little hardly uses it.",
        "Research use.",
    ]
    for row, line in enumerate(lines):
        _write(figure, left, (0.66 - 0.22 * row) / layout.height, line, QUIET)
    _legend(figure, layout)


def _legend(figure: Figure, layout: _StripLayout) -> None:
    """One row at the lower right, where names of stages cannot reach it."""
    y, height = 0.22 / layout.height, 0.1 / layout.height
    x = 1 - (0.35 + sum(map(_entry_width, LINES))) / _WIDTH
    for measure, (color, style) in LINES.items():
        sample = figure.add_axes((x, y - height / 2, 0.3 / _WIDTH, height))
        sample.set_axis_off()
        sample.plot([0, 1], [0, 0], color=color, linestyle=style, linewidth=1.5)
        _write(figure, x + 0.4 / _WIDTH, y, MEASURES[measure], color)
        x += _entry_width(measure) / _WIDTH


def _entry_width(measure: str) -> float:
    """The width of an entry of the legend, in inches."""
    return 0.62 + 0.073 * len(MEASURES[measure])


def _weakening(layout: _StripLayout, pictures: Mapping[str, Array]) -> str:
    """How much weaker the maps of random networks are, in words; empty up to a factor of 2."""
    if not layout.random:
        return ""
    ratios = []
    for randomized in layout.maps:
        own = pictures[randomized.method]
        first, last = (float(np.abs(own[step]).max()) for step in (0, -1))
        if not randomized.control and first > 0 and last > 0:
            ratios.append(first / last)
    largest = max(ratios, default=1.0)
    return f", as those of random networks are up to {number(largest)} times weaker" * (largest > 2)


def _in_lines(name: str) -> str:
    """A name in lines of about 14 letters."""
    words, lines = name.split(), [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > 14:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _write(
    figure: Figure, x: float, y: float, text: str, color: str, size: float = 10, ha: str = "left"
) -> None:
    figure.text(x, y, text, color=color, fontsize=size, va="center", ha=ha, parse_math=False)
