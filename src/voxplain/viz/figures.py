"""Figures of one map: planes through its strongest voxel, projections, channels side by side."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxplain.viz import colors
from voxplain.viz.overlay import VOID, Overlay, flat
from voxplain.viz.planes import PLANES, Plane, plane_of
from voxplain.viz.words import number, place

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

# Inches: the figure's width, its margins, and the room for title, captions and scale.
_WIDTH, _SIDE, _GAP, _HEAD, _FOOT, _CAPTION = 11.0, 0.25, 0.1, 0.86, 0.94, 0.33


def map_figure(scene: Overlay) -> Figure:
    """The static figure of one map, without global drawing state.

    A volume shows three planes through the strongest voxel and, below, the projections of the
    largest magnitude with its sign; a picture shows the image beside the overlay. Further
    channels follow in a row of their own. All panels share one color scale.
    """
    if scene.map.planar:
        return _assemble(scene, [_picture_row(scene), *_channel_rows(scene)])
    planes = [_MapPanel(plane, "cut") for plane in PLANES]
    projections = [_MapPanel(plane, "projection") for plane in PLANES]
    return _assemble(scene, [planes, projections, *_channel_rows(scene)])


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


def _picture_row(scene: Overlay) -> list[_MapPanel]:
    plane = None if scene.map.picture else plane_of(scene.map.shape)
    return [_MapPanel(plane, "image"), _MapPanel(plane, "cut"), _MapPanel(plane, "map")]


def _channel_rows(scene: Overlay) -> list[list[_MapPanel]]:
    count = len(scene.map.data)
    if count == 1:
        return []
    share = np.abs(np.nan_to_num(scene.map.data)).sum(axis=(1, 2, 3))
    chosen = sorted(np.argsort(share)[::-1][:4]) if count > 4 else range(count)
    plane = _picture_row(scene)[1].plane if scene.map.planar else PLANES[0]
    return [[_MapPanel(plane, "channel", int(index)) for index in chosen]]


def _assemble(scene: Overlay, rows: list[list[_MapPanel]]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [_row_height(scene, row) for row in rows]
    tall = _HEAD + _FOOT + sum(heights) + _CAPTION * len(rows)
    figure = Figure(figsize=(_WIDTH, tall), facecolor=INK)
    FigureCanvasAgg(figure)
    top = tall - _HEAD
    for row, height in zip(rows, heights, strict=True):
        widths = [height * _aspect(scene, panel) for panel in row]
        left = (_WIDTH - sum(widths) - _GAP * (len(row) - 1)) / 2
        for panel, width in zip(row, widths, strict=True):
            box = (left / _WIDTH, (top - height) / tall, width / _WIDTH, height / tall)
            _draw(figure.add_axes(box), scene, panel)
            left += width + _GAP
        top -= height + _CAPTION
    _write(figure, scene, tall)
    return figure


def _row_height(scene: Overlay, row: list[_MapPanel]) -> float:
    """As high as the row can be in the width of the figure, up to a bound."""
    free = _WIDTH - 2 * _SIDE - _GAP * (len(row) - 1)
    return float(min(free / sum(_aspect(scene, panel) for panel in row), 6.4))


def _aspect(scene: Overlay, panel: _MapPanel) -> float:
    width, height = _extent(scene, panel)
    return width / height


def _extent(scene: Overlay, panel: _MapPanel) -> tuple[float, float]:
    size = np.array(scene.map.shape) * scene.map.spacing
    if panel.plane is None:
        return float(size[1]), float(size[0])
    across, up = panel.plane.axes
    return float(size[across]), float(size[up])


def _draw(axes: Axes, scene: Overlay, panel: _MapPanel) -> None:
    background, overlay = _layers(scene, panel)
    picture = background if overlay is None else colors.blend(background, overlay)
    if picture.ndim == 2:
        picture = picture[..., None].repeat(3, axis=-1)
    width, height = _extent(scene, panel)
    smooth = "nearest" if scene.map.planar else "bilinear"
    axes.imshow(picture, extent=(0, width, height, 0), interpolation=smooth, aspect="auto")
    axes.set_facecolor(INK)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(_caption(scene, panel), color=QUIET, fontsize=10, labelpad=4)
    if panel.kind == ("image" if scene.map.planar else "cut"):
        _outline(axes, scene, panel, (width, height))
    if panel.kind == "cut" and not scene.map.planar:
        _crosshair(axes, scene, panel, (width, height))
    if panel.plane is not None:
        _letters(axes, panel.plane)


def _layers(scene: Overlay, panel: _MapPanel) -> tuple[Array, Array | None]:
    limit = scene.limit or 1.0
    if panel.kind == "image":
        return _flat(scene, panel, scene.picture()), None
    if panel.kind == "projection":
        return _projected(scene, panel)
    if panel.channel is not None:
        back, values = scene.gray(panel.channel), scene.map.data[panel.channel]
    else:
        back, values = scene.backdrop, scene.map.channel_sum()
    flat = _flat(scene, panel, values)
    gray = np.full(flat.shape, VOID) if panel.kind == "map" else _flat(scene, panel, back)
    return gray, colors.colorize(flat, limit, scene.sign)


def _projected(scene: Overlay, panel: _MapPanel) -> tuple[Array, Array]:
    assert panel.plane is not None
    axis = panel.plane.axis
    flat = panel.plane.show(scene.projections[axis])
    shade = panel.plane.show(scene.backdrop.mean(axis=axis) * 0.6)
    return shade, colors.colorize(flat, scene.projection_limit, scene.sign, threshold=0.2)


def _flat(scene: Overlay, panel: _MapPanel, volume: Array) -> Array:
    if scene.map.planar:
        return flat(scene.map, volume)
    assert panel.plane is not None
    return panel.plane.cut(volume, scene.peak[panel.plane.axis])


def _caption(scene: Overlay, panel: _MapPanel) -> str:
    if panel.kind == "channel":
        names = scene.map.channels
        index = panel.channel or 0
        return names[index] if index < len(names) else f"channel {index}"
    if panel.kind == "projection":
        assert panel.plane is not None
        return f"{panel.plane.name}, strongest value along {panel.plane.coordinate}"
    if scene.map.planar:
        return {"image": "image", "cut": "image and map", "map": "map alone"}[panel.kind]
    assert panel.plane is not None
    millimeters = scene.map.world(scene.peak)[panel.plane.axis]
    return f"{panel.plane.name}, {panel.plane.coordinate} = {place(millimeters)} {scene.map.unit}"


def _outline(axes: Axes, scene: Overlay, panel: _MapPanel, extent: tuple[float, float]) -> None:
    styles = ((scene.prediction, PREDICTION, "solid"), (scene.reference, REFERENCE, "dashed"))
    for mask, color, style in styles:
        if mask is None:
            continue
        flat = _flat(scene, panel, mask.astype(np.float32))
        if flat.min() == flat.max():
            continue
        rows, columns = flat.shape
        x = (np.arange(columns) + 0.5) / columns * extent[0]
        y = (np.arange(rows) + 0.5) / rows * extent[1]
        axes.contour(x, y, flat, [0.5], colors=color, linestyles=style, linewidths=0.7, alpha=0.8)


def _crosshair(axes: Axes, scene: Overlay, panel: _MapPanel, extent: tuple[float, float]) -> None:
    assert panel.plane is not None
    row, column = panel.plane.pixel(scene.peak, scene.map.shape)
    across, up = panel.plane.axes
    x = (column + 0.5) / scene.map.shape[across] * extent[0]
    y = (row + 0.5) / scene.map.shape[up] * extent[1]
    gap = 0.045 * max(extent)
    for start, end in ((0, x - gap), (x + gap, extent[0])):
        axes.plot([start, end], [y, y], color=PAPER, linewidth=0.6, alpha=0.45)
    for start, end in ((0, y - gap), (y + gap, extent[1])):
        axes.plot([x, x], [start, end], color=PAPER, linewidth=0.6, alpha=0.45)


def _letters(axes: Axes, plane: Plane) -> None:
    spots = [(0.025, 0.5, plane.left), (0.975, 0.5, plane.right)]
    spots += [(0.5, 0.965, plane.top), (0.5, 0.035, plane.bottom)]
    for x, y, letter in spots:
        axes.text(
            x, y, letter, transform=axes.transAxes, color=PAPER, fontsize=10,
            fontweight="bold", ha="center", va="center",
        )  # fmt: skip


def _write(figure: Figure, scene: Overlay, tall: float) -> None:
    left = 0.25 / _WIDTH
    figure.text(left, 1 - 0.3 / tall, scene.title, color=PAPER, fontsize=14.5, va="center")
    figure.text(left, 1 - 0.58 / tall, scene.subtitle, color=QUIET, fontsize=11, va="center")
    _bar(figure, scene, tall)
    lines = [*_legend(scene), "Research use. Shows what the model used, not what is true."]
    for row, line in enumerate(lines):
        y = (0.74 - 0.23 * row) / tall
        figure.text(left, y, line, color=QUIET, fontsize=10, va="center")


def _bar(figure: Figure, scene: Overlay, tall: float) -> None:
    limit = scene.limit or 1.0
    axes = figure.add_axes((0.64, 0.5 / tall, 0.335, 0.15 / tall))
    strip = colors.blend(np.full((1, 512), 0.1), colors.bar(scene.sign, limit)[None])
    low = -limit if scene.sign == "signed" else 0.0
    axes.imshow(strip, aspect="auto", extent=(low, limit, 0, 1))
    axes.set_axis_off()
    ends = ((0.0, low, "left"), (0.5, (low + limit) / 2, "center"), (1.0, limit, "right"))
    for x, value, side in ends:
        _beside(axes, x, -0.55, number(value), side, PAPER)
    words = {"signed": ("evidence against", "evidence for"), "positive": ("", "evidence for")}
    weak, strong = words.get(scene.sign, ("", "influence, either way"))
    _beside(axes, 0.0, 1.75, weak, "left", PAPER)
    _beside(axes, 1.0, 1.75, strong, "right", PAPER)
    _beside(axes, 0.5, -1.95, scene.units, "center", QUIET)


def _beside(axes: Axes, x: float, y: float, text: str, side: str, color: str) -> None:
    axes.text(
        x, y, text, transform=axes.transAxes, color=color, fontsize=10, ha=side, va="center"
    )  # fmt: skip


def _legend(scene: Overlay) -> list[str]:
    scale = f"Colors saturate at ±{number(scene.limit or 1.0)}, the 99.5th percentile of the map"
    if not scene.map.planar:
        scale += f" (projections: ±{number(scene.projection_limit)})"
    parts = [] if scene.map.picture else ["patient's right at the left"]
    if scene.prediction is not None:
        parts.append("solid line: prediction")
    if scene.reference is not None:
        parts.append("dashed line: reference")
    line = "; ".join(parts)
    return [scale + ".", line[:1].upper() + line[1:] + "." if line else ""]
