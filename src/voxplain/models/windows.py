"""Sliding windows: how a volume is divided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from voxplain.errors import ConfigError, ModelError
from voxplain.extents import Extent, PositiveExtent, require_bounded, resolve
from voxplain.models.blending import Blend, Blending, WindowAxis
from voxplain.models.layout import Layout, Padding
from voxplain.models.output_place import OutputPlace
from voxplain.models.tiles import Tiles

Share = Annotated[float, Field(ge=0, lt=1)]
_FINEST = 1000
"""Largest denominator of the voxels per cell of an output, as a fraction."""


def _checked(overlap: Any) -> Any:
    for share in overlap if isinstance(overlap, (list, tuple)) and overlap else [overlap]:
        if not isinstance(share, (int, float)) or isinstance(share, bool):
            raise ValueError(f"{share!r} should be a valid number, or one for each axis")
        if not 0 <= share < 1:
            raise ValueError(f"an overlap is at least 0 and less than 1, and this is {share}")
    return overlap


class Window(BaseModel):
    """Sliding windows, for networks with an input size of their own.

    With the defaults outputs are those of MONAI's ``sliding_window_inference``.

    Attributes:
        size: Extent of a window.
        overlap: Share of a window without its halo that a neighbor covers too, in [0, 1); one for
            all axes, or one per axis.
        blend: Weights of overlapping outputs: ``gaussian`` around the center of the window (sigma
            1/8 of its side, at least 1e-3 of its maximum, as in MONAI), ``constant``, or
            ``nnunet`` for the weights of nnU-Net and its windows at equal distances (without its
            mirroring).
        halo: Margin of a window whose output is ignored, except at the border of the volume.
        batch: Windows per call of the network.
        padding: What surrounds a volume that is smaller than a window, half on either side:
            ``constant`` for one value, or its own values: ``reflect``, ``replicate``,
            ``circular``.
        padding_value: The value of ``constant`` padding, in the intensities that the network sees
            (``cval`` in MONAI).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: PositiveExtent
    overlap: Annotated[Share | tuple[Share, ...], BeforeValidator(_checked)] = 0.5
    blend: Blend = "gaussian"
    halo: Extent = 0
    batch: int = Field(default=1, ge=1)
    padding: Padding = "constant"
    padding_value: float = Field(default=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check_together(self) -> Window:
        if self.padding_value and self.padding != "constant":
            raise ValueError(
                f"padding_value is for padding: constant, and this is padding: {self.padding}, "
                "which repeats the image"
            )
        if isinstance(self.overlap, tuple) and isinstance(self.size, tuple):
            _require_axes(self.overlap, len(self.size), "the size", ValueError)
        return self

    def layout(
        self,
        shape: Sequence[int],
        spacing: Sequence[float] | None = None,
        place: OutputPlace | None = None,
    ) -> Layout:
        """The windows over a volume.

        Args:
            shape: Spatial shape of the volume.
            spacing: Millimeters per voxel, for extents in mm.
            place: Where the cells of the output of a window lie in the window; None for an output
                with a cell at each voxel.

        Raises:
            ConfigError: If a window has no voxel left inside its halo, a number of values is not
                that of the axes, or windows start between the cells of the output.
            ModelError: If no output lies inside the volume.
        """
        return _layout(self, tuple(shape), None if spacing is None else tuple(spacing), place)


def _require_axes(
    overlap: tuple[float, ...], count: int, what: str, error: type[Exception] = ConfigError
) -> None:
    if len(overlap) != count:
        raise error(
            f"overlap has {len(overlap)} values, and {what} has {count} axes; give one for all "
            "axes, or one for each"
        )


@dataclass(frozen=True)
class _Along:
    """The windows along one axis.

    Attributes:
        image: Voxels of the volume.
        side: Voxels of a window.
        ignored: Voxels before and behind the outputs that are used inside the volume.
        margin: The same at its ends.
        starts: First voxels of the windows in the padded volume.
    """

    image: int
    side: int
    ignored: tuple[int, int]
    margin: tuple[int, int]
    starts: tuple[int, ...]

    @property
    def inner(self) -> int:
        """Voxels of a window whose outputs are used inside the volume."""
        return self.side - sum(self.ignored)

    def on_cells(self, stride: float, middles: tuple[int, ...]) -> WindowAxis:
        """The windows on cells with so many voxels each, whose middles lie here in a window."""
        used = []
        for start in self.starts:
            first = (self.ignored if start > 0 else self.margin)[0]
            end = self.side - (self.ignored if start < self.starts[-1] else self.margin)[1]
            cells = [cell for cell, voxel in enumerate(middles) if first <= voxel < end]
            used.append((cells[0], cells[-1] + 1) if cells else (0, 0))
        starts = [round(start / stride) for start in self.starts]
        return WindowAxis.of(starts, used, starts[-1] + len(middles), len(middles))


@lru_cache(maxsize=4)
def _layout(
    window: Window,
    shape: tuple[int, ...],
    spacing: tuple[float, ...] | None,
    place: OutputPlace | None,
) -> Layout:
    size = resolve(window.size, shape, spacing)
    require_bounded(size, "window.size")
    halo = resolve(window.halo, shape, spacing)
    voxels = OutputPlace.same(size)
    place = place or voxels
    axes = _axes(window, shape, size, halo, place.margins)
    for number, along in enumerate(axes):
        _require_on_cells(along, number, place.stride[number], window.blend)
    inputs = _tiles(axes, voxels, window.blend)
    outputs = inputs if place.is_same else _tiles(axes, place, window.blend)
    layout = Layout(
        inputs.grid,
        inputs.blending,
        shape,
        window.padding,
        window.padding_value,
        outputs,
        place,
    )
    if any(cells < 1 for cells in layout.place.cells):
        raise ModelError(f"windows of {size} voxels have no output inside a volume of {shape}")
    return layout


def _axes(
    window: Window,
    shape: tuple[int, ...],
    size: tuple[int, ...],
    halo: tuple[int, ...],
    margins: Sequence[tuple[int, int]],
) -> tuple[_Along, ...]:
    ignored = tuple(
        (max(margin, first), max(margin, last))
        for margin, (first, last) in zip(halo, margins, strict=True)
    )
    if any(side <= sum(ends) for side, ends in zip(size, ignored, strict=True)):
        inside = f"a halo of {halo}" if any(halo) else "what its output does not cover"
        raise ConfigError(f"a window of {size} voxels has nothing left inside {inside}")
    overlap = window.overlap if isinstance(window.overlap, tuple) else (window.overlap,) * len(size)
    _require_axes(overlap, len(size), "the image")
    found = []
    for image, side, ends, margin, share in zip(
        shape, size, ignored, margins, overlap, strict=True
    ):
        step = (side - sum(ends)) * (1 - share)
        starts = _starts(max(image - side, 0), step, window.blend)
        found.append(_Along(image, side, ends, margin, starts))
    return tuple(found)


def _starts(last: int, step: float, blend: Blend) -> tuple[int, ...]:
    """First voxels of the windows along an axis, up to ``last``.

    They lie ``step`` voxels apart, rounded down, as in MONAI; for nnU-Net at equal distances of at
    most ``step``.
    """
    if blend != "nnunet":
        return (*range(0, last, max(1, int(step))), last)
    count = math.ceil(last / step)
    starts = (round(last / count * index) for index in range(count + 1)) if count else (0,)
    return tuple(dict.fromkeys(starts))


def _tiles(axes: tuple[_Along, ...], place: OutputPlace, blend: Blend) -> Tiles:
    """The windows on the cells of an output with this place in a window."""
    cells = zip(axes, place.stride, place.middles, strict=True)
    on_cells = tuple(along.on_cells(stride, middles) for along, stride, middles in cells)
    blending = Blending(blend, place.image, place.middles, on_cells)
    return Tiles(tuple(len(axis.kinds) for axis in on_cells), blending)


def _require_on_cells(along: _Along, axis: int, stride: float, blend: Blend) -> None:
    """Refuses windows whose cells would lie between those of their neighbors."""
    unit = Fraction(stride).limit_denominator(_FINEST).numerator
    wrong = next((start for start in along.starts if start % unit), None)
    if wrong is None:
        return
    if wrong == along.starts[-1]:
        longer = along.image + -wrong % unit
        works = f"pad the image along it from {along.image} to {longer} voxels"
    else:
        works = _better_step(along, unit, blend)
    raise ConfigError(
        f"a window starts at voxel {wrong} of axis {axis}, between two cells of the output of the "
        f"network, which has one every {stride:g} voxels, so that the windows cannot be joined; "
        f"{works}"
    )


def _better_step(along: _Along, unit: int, blend: Blend) -> str:
    """What would put all windows but the last one on multiples of ``unit`` voxels."""
    if blend == "nnunet":
        return "take blend gaussian or constant, whose steps are equal"
    if unit > along.inner:
        return f"take windows with at least {unit} voxels inside their halo"
    step = max(unit, along.starts[1] // unit * unit)
    shares = (round(1 - step / along.inner, digits) for digits in range(1, 5))
    fitting = (share for share in shares if share >= 0 and int(along.inner * (1 - share)) == step)
    overlap = next(fitting, 1 - (step + 0.5) / along.inner)
    return f"take overlap {overlap:g} along it, a step of {step} voxels"
