"""The static figure of one map: planes through its strongest voxel, projections, channels."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxplain.viz import colors
from voxplain.viz.overlay import VOID, Overlay, flat
from voxplain.viz.planes import PLANES, Plane, plane_of
from voxplain.viz.words import coordinate, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[Any]

INK = "#0d0f12"
PAPER = "#e9e7e2"
QUIET = "#a3a19b"
PREDICTION = "#f4f4f0"
REFERENCE = "#79e0b0"
_DPI = 110

# Inches: width of the figure, margin, gap, and room for title, color scale and captions.
_WIDTH, _SIDE, _GAP, _HEAD, _FOOT, _CAPTION = 11.0, 0.25, 0.1, 0.86, 0.94, 0.33


def map_figure(overlay: Overlay) -> Figure:
    """The figure of one map; no global state of matplotlib is touched.

    Of a volume it shows three planes through the strongest voxel and, below, projections of the
    largest magnitude with its sign; of a picture the image, the overlay and the map alone. Several
    channels follow in a row of their own. All panels but the projections share one color scale.
    """
    if overlay.map.planar:
        return _assemble(overlay, [_picture_row(overlay), *_channel_rows(overlay)])
    planes = [_MapPanel(plane, "cut") for plane in PLANES]
    projections = [_MapPanel(plane, "projection") for plane in PLANES]
    return _assemble(overlay, [planes, projections, *_channel_rows(overlay)])


def png(figure: Figure) -> bytes:
    """The figure as PNG without metadata."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI, facecolor=INK, metadata={"Software": None})
    return stream.getvalue()


@dataclass(frozen=True)
class _MapPanel:
    plane: Plane | None
    kind: str
    channel: int | None = None


def _picture_row(overlay: Overlay) -> list[_MapPanel]:
    plane = None if overlay.map.picture else plane_of(overlay.map.shape)
    return [_MapPanel(plane, "image"), _MapPanel(plane, "cut"), _MapPanel(plane, "map")]


def _channel_rows(overlay: Overlay) -> list[list[_MapPanel]]:
    count = len(overlay.map.data)
    if count == 1:
        return []
    share = np.abs(np.nan_to_num(overlay.map.data)).sum(axis=(1, 2, 3))
    chosen = sorted(np.argsort(share)[::-1][:4]) if count > 4 else range(count)
    plane = _picture_row(overlay)[1].plane if overlay.map.planar else PLANES[0]
    return [[_MapPanel(plane, "channel", int(index)) for index in chosen]]


def _assemble(overlay: Overlay, rows: list[list[_MapPanel]]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [_row_height(overlay, row) for row in rows]
    total = _HEAD + _FOOT + sum(heights) + _CAPTION * len(rows)
    figure = Figure(figsize=(_WIDTH, total), facecolor=INK)
    FigureCanvasAgg(figure)
    top = total - _HEAD
    for row, height in zip(rows, heights, strict=True):
        widths = [height * _aspect(overlay, panel) for panel in row]
        left = (_WIDTH - sum(widths) - _GAP * (len(row) - 1)) / 2
        for panel, width in zip(row, widths, strict=True):
            box = (left / _WIDTH, (top - height) / total, width / _WIDTH, height / total)
            _draw(figure.add_axes(box), overlay, panel)
            left += width + _GAP
        top -= height + _CAPTION
    _annotate(figure, overlay)
    return figure


def _row_height(overlay: Overlay, row: list[_MapPanel]) -> float:
    """The height in inches at which the row fills the width of the figure, at most 6.4."""
    free = _WIDTH - 2 * _SIDE - _GAP * (len(row) - 1)
    return float(min(free / sum(_aspect(overlay, panel) for panel in row), 6.4))


def _aspect(overlay: Overlay, panel: _MapPanel) -> float:
    width, height = _extent(overlay, panel)
    return width / height


def _extent(overlay: Overlay, panel: _MapPanel) -> tuple[float, float]:
    size = np.array(overlay.map.shape) * overlay.map.spacing
    if panel.plane is None:
        return float(size[1]), float(size[0])
    across, up = panel.plane.axes
    return float(size[across]), float(size[up])


def _draw(axes: Axes, overlay: Overlay, panel: _MapPanel) -> None:
    background, colored = _layers(overlay, panel)
    picture = background if colored is None else colors.blend(background, colored)
    if picture.ndim == 2:
        picture = picture[..., None].repeat(3, axis=-1)
    width, height = _extent(overlay, panel)
    smooth = "nearest" if overlay.map.planar else "bilinear"
    axes.imshow(picture, extent=(0, width, height, 0), interpolation=smooth, aspect="auto")
    axes.set_facecolor(INK)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(
        _caption(overlay, panel), color=QUIET, fontsize=10, labelpad=4, parse_math=False
    )
    if panel.kind == ("image" if overlay.map.planar else "cut"):
        _outline(axes, overlay, panel, (width, height))
    if panel.kind == "cut" and not overlay.map.planar:
        _crosshair(axes, overlay, panel, (width, height))
    if panel.plane is not None:
        _letters(axes, panel.plane)


def _layers(overlay: Overlay, panel: _MapPanel) -> tuple[Array, Array | None]:
    limit = overlay.limit or 1.0
    if panel.kind == "image":
        return _flat(overlay, panel, overlay.picture()), None
    if panel.kind == "projection":
        return _projected(overlay, panel)
    if panel.channel is not None:
        background, values = overlay.gray(panel.channel), overlay.map.data[panel.channel]
    else:
        background, values = overlay.backdrop, overlay.map.channel_sum()
    flat_map = _flat(overlay, panel, values)
    gray = _flat(overlay, panel, background)
    gray = np.full(flat_map.shape, VOID) if panel.kind == "map" else gray
    return gray, colors.colorize(flat_map, limit, overlay.sign)


def _projected(overlay: Overlay, panel: _MapPanel) -> tuple[Array, Array]:
    assert panel.plane is not None
    axis = panel.plane.axis
    projection = panel.plane.show(overlay.projections[axis])
    gray = panel.plane.show(overlay.backdrop.mean(axis=axis) * 0.6)
    return gray, colors.colorize(projection, overlay.projection_limit, overlay.sign, threshold=0.2)


def _flat(overlay: Overlay, panel: _MapPanel, volume: Array) -> Array:
    if overlay.map.planar:
        return flat(overlay.map, volume)
    assert panel.plane is not None
    return panel.plane.cut(volume, overlay.peak[panel.plane.axis])


def _caption(overlay: Overlay, panel: _MapPanel) -> str:
    if panel.kind == "channel":
        names = overlay.map.channels
        index = panel.channel or 0
        return names[index] if index < len(names) else f"channel {index}"
    if panel.kind == "projection":
        assert panel.plane is not None
        return f"{panel.plane.name}, strongest value along {panel.plane.coordinate}"
    if overlay.map.planar:
        return {"image": "image", "cut": "image and map", "map": "map alone"}[panel.kind]
    assert panel.plane is not None
    position = coordinate(overlay.map.world(overlay.peak)[panel.plane.axis])
    return f"{panel.plane.name}, {panel.plane.coordinate} = {position} {overlay.map.unit}"


def _outline(axes: Axes, overlay: Overlay, panel: _MapPanel, extent: tuple[float, float]) -> None:
    styles = ((overlay.prediction, PREDICTION, "solid"), (overlay.reference, REFERENCE, "dashed"))
    for mask, color, style in styles:
        if mask is None:
            continue
        inside = _flat(overlay, panel, mask.astype(np.float32))
        if inside.min() == inside.max():
            continue
        rows, columns = inside.shape
        x = (np.arange(columns) + 0.5) / columns * extent[0]
        y = (np.arange(rows) + 0.5) / rows * extent[1]
        axes.contour(x, y, inside, [0.5], colors=color, linestyles=style, linewidths=0.7, alpha=0.8)


def _crosshair(axes: Axes, overlay: Overlay, panel: _MapPanel, extent: tuple[float, float]) -> None:
    assert panel.plane is not None
    row, column = panel.plane.pixel(overlay.peak, overlay.map.shape)
    across, up = panel.plane.axes
    x = (column + 0.5) / overlay.map.shape[across] * extent[0]
    y = (row + 0.5) / overlay.map.shape[up] * extent[1]
    gap = 0.045 * max(extent)
    for start, end in ((0, x - gap), (x + gap, extent[0])):
        axes.plot([start, end], [y, y], color=PAPER, linewidth=0.6, alpha=0.45)
    for start, end in ((0, y - gap), (y + gap, extent[1])):
        axes.plot([x, x], [start, end], color=PAPER, linewidth=0.6, alpha=0.45)


def _letters(axes: Axes, plane: Plane) -> None:
    places = [(0.025, 0.5, plane.left), (0.975, 0.5, plane.right)]
    places += [(0.5, 0.965, plane.top), (0.5, 0.035, plane.bottom)]
    for x, y, letter in places:
        axes.text(
            x, y, letter, transform=axes.transAxes, color=PAPER, fontsize=10,
            fontweight="bold", ha="center", va="center",
        )  # fmt: skip


def _annotate(figure: Figure, overlay: Overlay) -> None:
    left, height = 0.25 / _WIDTH, figure.get_figheight()
    figure.text(
        left,
        1 - 0.3 / height,
        overlay.title,
        color=PAPER,
        fontsize=14.5,
        va="center",
        parse_math=False,
    )
    figure.text(
        left,
        1 - 0.58 / height,
        overlay.subtitle,
        color=QUIET,
        fontsize=11,
        va="center",
        parse_math=False,
    )
    _color_bar(figure, overlay)
    lines = [*_legend(overlay), "Research use. Shows what the model used, not what is true."]
    for row, line in enumerate(lines):
        y = (0.74 - 0.23 * row) / height
        figure.text(left, y, line, color=QUIET, fontsize=10, va="center", parse_math=False)


def _color_bar(figure: Figure, overlay: Overlay) -> None:
    limit, height = overlay.limit or 1.0, figure.get_figheight()
    axes = figure.add_axes((0.64, 0.5 / height, 0.335, 0.15 / height))
    strip = colors.blend(np.full((1, 512), 0.1), colors.color_bar(overlay.sign, limit)[None])
    low = -limit if overlay.sign == "signed" else 0.0
    axes.imshow(strip, aspect="auto", extent=(low, limit, 0, 1))
    axes.set_axis_off()
    ends = ((0.0, low, "left"), (0.5, (low + limit) / 2, "center"), (1.0, limit, "right"))
    for x, value, side in ends:
        _label(axes, x, -0.55, number(value), side, PAPER)
    meanings = {"signed": ("evidence against", "evidence for"), "positive": ("", "evidence for")}
    low_meaning, high_meaning = meanings.get(overlay.sign, ("", "influence, either way"))
    _label(axes, 0.0, 1.75, low_meaning, "left", PAPER)
    _label(axes, 1.0, 1.75, high_meaning, "right", PAPER)
    _label(axes, 0.5, -1.95, overlay.units, "center", QUIET)


def _label(axes: Axes, x: float, y: float, text: str, side: str, color: str) -> None:
    axes.text(
        x, y, text, transform=axes.transAxes, color=color, fontsize=10, ha=side, va="center"
    )  # fmt: skip


def _legend(overlay: Overlay) -> list[str]:
    scale = f"Colors saturate at ±{number(overlay.limit or 1.0)}, the 99.5th percentile of the map"
    if not overlay.map.planar:
        scale += f" (projections: ±{number(overlay.projection_limit)})"
    notes = [] if overlay.map.picture else ["patient's right at the left"]
    if overlay.prediction is not None:
        notes.append("solid line: prediction")
    if overlay.reference is not None:
        notes.append("dashed line: reference")
    line = "; ".join(notes)
    return [scale + ".", line[:1].upper() + line[1:] + "." if line else ""]
