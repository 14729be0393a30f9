"""A cascade as a picture: each map while the network forgets stage after stage, and how alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxplain.records.cascades import MapRandomized, RandomizationRecord, similarities
from voxplain.report.trust.plot_frame import bounds, mean, middles
from voxplain.report.trust.randomization_summary import MEASURES
from voxplain.viz import colors
from voxplain.viz.figures import INK, PAPER, QUIET
from voxplain.viz.words import fixed, number, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[Any]

MOST = 9
"""Pictures in a row; of more steps, evenly chosen ones with the first and the last."""

LINES = {
    "spearman": ("#f0efe9", "solid"),
    "spearman_absolute": ("#ffb866", "dotted"),
    "ssim": ("#6db3f2", "dashed"),
    "hog": ("#79e0b0", "dashdot"),
}

CONTROLS = {
    "random": "Random map",
    "edges": "Edge detector",
    "intensity": "Brightness",
    "center": "Middle of the image",
    "reference": "Reference itself",
}
"""Controls as the page calls them."""

RANDOM = "random"
"""What a network is called that is random as a whole."""

_HEADS = {
    "top_down": "Stages randomized from the output down, one more in every column",
    "bottom_up": "Stages randomized from the input up, one more in every column",
    "independent": "One stage randomized at a time, the others as they were trained",
}

_LONGEST = 24
"""Letters of a stage: longer ones would reach into the title."""

_WIDEST = 155
"""Letters of the line below the title; longer ones are written smaller."""

# Inches.
_WIDTH, _LABEL, _CURVE, _GAP, _HEAD, _FOOT, _UNDER = 14.0, 1.55, 2.3, 0.06, 1.75, 1.0, 0.26


def cascade_strip(record: RandomizationRecord, pictures: Mapping[str, Array]) -> Figure:
    """Rows of maps from the trained network to a random one, each with its curves at the end.

    Args:
        record: The cascade.
        pictures: Per map ``(steps, rows, columns)``.

    Returns:
        A figure without global drawing state.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layout = _StripLayout.of(record, pictures)
    figure = Figure(figsize=(_WIDTH, layout.tall), facecolor=INK)
    FigureCanvasAgg(figure)
    for row, part in enumerate(layout.maps):
        _row(figure, layout, row, part, pictures[part.method])
    _headings(figure, layout, record)
    _notes(figure, layout, pictures)
    return figure


def alternative(record: RandomizationRecord) -> str:
    """What the strip shows, in words."""
    ends = []
    for part in record.maps:
        curves = similarities(part, "spearman")
        if curves.size:
            ends.append(f"{label(part.method)} {fixed(mean(curves[:, -1]))}")
    return (
        f"Maps over {len(record.stages) - 1} steps of randomization. "
        f"Correlation with the trained network's map at the end: {', '.join(ends)}."
    )


def label(name: str) -> str:
    """A map or a control as the page calls it; what is about no map is about the network."""
    return CONTROLS.get(name, title(name)) or "Network"


def stage_name(paths: list[str]) -> str:
    """The layers of a step, short enough for the head of a column."""
    if not paths:
        return "trained"
    first = paths[-1].replace("_conv", "").split(".")
    short = ".".join(first[-3:] if len(".".join(first[-3:])) <= 20 else first[-2:])
    others = "" if len(paths) == 1 else f" +{len(paths) - 1}"
    room = _LONGEST - len(others)
    return f"{short if len(short) <= room else short[: room - 1] + '…'}{others}"


def ends_of(record: RandomizationRecord) -> tuple[str, str]:
    """What the first and the last step are; one stage at a time, the last is not random."""
    return "trained", RANDOM if record.order != "independent" else "last stage"


@dataclass(frozen=True)
class _StripLayout:
    """Where everything lies, in inches from the left and the top.

    Attributes:
        maps: Those with pictures, in rows.
        steps: Of the columns.
        cell: Width and height of a picture.
        tall: Height of the figure.
        ends: What the first and the last step are.
    """

    maps: tuple[MapRandomized, ...]
    steps: tuple[int, ...]
    cell: tuple[float, float]
    tall: float
    ends: tuple[str, str]

    @classmethod
    def of(cls, record: RandomizationRecord, pictures: Mapping[str, Array]) -> _StripLayout:
        maps = tuple(part for part in record.maps if part.method in pictures)
        count = len(record.stages)
        chosen = np.unique(np.linspace(0, count - 1, min(count, MOST)).round().astype(int))
        rows, columns = pictures[maps[0].method].shape[1:]
        flat = columns / (rows * record.aspect)
        free = _WIDTH - _LABEL - _CURVE - 0.9
        width = min(free / len(chosen) - _GAP, 2.0 * flat)
        height = width / flat
        tall = _HEAD + len(maps) * (height + _UNDER) + _FOOT
        return cls(maps, tuple(chosen.tolist()), (width, height), tall, ends_of(record))

    @property
    def random(self) -> bool:
        """Whether the last network is random as a whole."""
        return self.ends[1] == RANDOM

    def box(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Of a picture, as a figure wants it."""
        width, height = self.cell
        left = _LABEL + column * (width + _GAP)
        top = _HEAD + row * (height + _UNDER)
        return left / _WIDTH, 1 - (top + height) / self.tall, width / _WIDTH, height / self.tall

    def curves(self, row: int) -> tuple[float, float, float, float]:
        """Of the curves at the end of a row."""
        _, bottom, _, height = self.box(row, 0)
        left = _LABEL + len(self.steps) * (self.cell[0] + _GAP) + 0.55
        return left / _WIDTH, bottom, min(_WIDTH - 0.35 - left, 2 * _CURVE) / _WIDTH, height


def _row(
    figure: Figure, layout: _StripLayout, row: int, part: MapRandomized, pictures: Array
) -> None:
    signed = similarities(part, "spearman")
    for column, step in enumerate(layout.steps):
        box = layout.box(row, column)
        axes = figure.add_axes(box)
        axes.set_axis_off()
        axes.imshow(_colored(pictures[step], part), interpolation="nearest", aspect="auto")
        value = fixed(mean(signed[:, step])) if signed.size else ""
        middle = box[0] + box[2] / 2
        _write(figure, middle, box[1] - 0.13 / layout.tall, value, PAPER, ha="center")
    left, bottom, _, height = layout.box(row, 0)
    name, control = label(part.method), "control" if part.control else ""
    lift = 0.1 / layout.tall if control else 0.0
    right = left - 0.12 / _WIDTH
    _write(figure, right, bottom + height / 2 + lift, _broken(name), PAPER, 11, ha="right")
    _write(figure, right, bottom + height / 2 - lift, control, QUIET, ha="right")
    ends = layout.ends if row == len(layout.maps) - 1 else ()
    _curves(figure.add_axes(layout.curves(row)), part, ends)


def _colored(picture: Array, part: MapRandomized) -> Array:
    limit = float(np.quantile(np.abs(picture), 0.995)) or float(np.abs(picture).max()) or 1.0
    sign = part.sign if part.sign == "signed" else "positive"
    return colors.blend(np.zeros(picture.shape), colors.colorize(picture, limit, sign, 0.02))


def _curves(axes: Axes, part: MapRandomized, ends: Sequence[str]) -> None:
    axes.set_facecolor(INK)
    for measure, (color, style) in LINES.items():
        table = similarities(part, measure)
        if not table.size:
            continue
        steps = np.arange(table.shape[1])
        axes.fill_between(steps, *bounds(table), color=color, alpha=0.18, linewidth=0)
        axes.plot(steps, middles(table), color=color, linestyle=style, linewidth=1.5)
        known = [value for value in part.chance.get(measure, []) if value is not None]
        if known:
            axes.plot([1.06 * steps[-1]], [np.mean(known)], "_", color=color, markersize=11)
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
    parts = [f"case {record.case}", f"model {record.model}"]
    left = 0.25 / _WIDTH
    head = "What is left of a map when the network forgets what it learned"
    _write(figure, left, 1 - 0.3 / layout.tall, head, PAPER, 14.5)
    shown, count = len(layout.steps) - 1, len(record.stages) - 1
    some = f" ({shown} of {count} steps are shown)" if shown < count else ""
    line = "  ·  ".join([*parts, _HEADS[record.order] + some])
    size = min(11.0, 11.0 * _WIDEST / len(line))
    _write(figure, left, 1 - 0.6 / layout.tall, line, QUIET, size)
    for column, step in enumerate(layout.steps):
        x, y, width, height = layout.box(0, column)
        name = stage_name(record.stages[step])
        place = (x + width * 0.3, y + height + 0.06 / layout.tall)
        turn: Any = {"rotation": 28, "rotation_mode": "anchor", "va": "bottom"}
        figure.text(*place, name, color=PAPER, fontsize=9.5, ha="left", **turn)


def _notes(figure: Figure, layout: _StripLayout, pictures: Mapping[str, Array]) -> None:
    left = 0.25 / _WIDTH
    bars = "; bar at the end, two random networks" * layout.random
    lines = [
        "Below each picture: rank correlation (signed) with the map of the trained network, the "
        f"mean of all seeds. Middle plane, first seed. Curves: band, all seeds{bars}.",
        f"Every picture has a color scale of its own{_weaker(layout, pictures)}. "
        "An edge detector never asks the network; a map that stays as it does hardly asks it.",
        "Research use.",
    ]
    for row, line in enumerate(lines):
        _write(figure, left, (0.66 - 0.22 * row) / layout.tall, line, QUIET)
    _legend(figure, layout)


def _legend(figure: Figure, layout: _StripLayout) -> None:
    """In one row at the lower right, where no name of a stage can reach it."""
    y, height = 0.22 / layout.tall, 0.1 / layout.tall
    x = 1 - (0.35 + sum(map(_wide, LINES))) / _WIDTH
    for measure, (color, style) in LINES.items():
        sample = figure.add_axes((x, y - height / 2, 0.3 / _WIDTH, height))
        sample.set_axis_off()
        sample.plot([0, 1], [0, 0], color=color, linestyle=style, linewidth=1.5)
        _write(figure, x + 0.4 / _WIDTH, y, MEASURES[measure], color)
        x += _wide(measure) / _WIDTH


def _wide(measure: str) -> float:
    """Inches of an entry of the legend."""
    return 0.62 + 0.073 * len(MEASURES[measure])


def _weaker(layout: _StripLayout, pictures: Mapping[str, Array]) -> str:
    """How much weaker the maps of a random network are, in words."""
    if not layout.random:
        return ""
    ratios = []
    for part in layout.maps:
        first, last = (float(np.abs(pictures[part.method][step]).max()) for step in (0, -1))
        if not part.control and first > 0 and last > 0:
            ratios.append(first / last)
    largest = max(ratios, default=1.0)
    return f", as those of random networks are up to {number(largest)} times weaker" * (largest > 2)


def _broken(name: str) -> str:
    words, lines = name.split(), [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > 14:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _write(
    figure: Figure, x: float, y: float, text: str, color: str, size: float = 10, ha: str = "left"
) -> None:
    figure.text(x, y, text, color=color, fontsize=size, va="center", ha=ha)
