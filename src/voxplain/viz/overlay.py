"""What a figure shows: a map, what lies under it, and the scales of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.viz.colors import Sign
from voxplain.viz.planes import plane_of, signed_projection
from voxplain.viz.scale import gray_window, robust_limit, strongest
from voxplain.viz.volume import DisplayVolume

Array = NDArray[Any]

VOID = 0.055
"""Gray of a panel without an image."""

_DIM = 0.8


@dataclass(frozen=True, eq=False)
class Overlay:
    """What a figure shows.

    Attributes:
        map: The map on canonical axes (or a picture).
        image: Background on the voxels of the map; None leaves it dark.
        prediction: ``(X, Y, Z)`` mask drawn as a solid outline.
        reference: ``(X, Y, Z)`` mask drawn as a dashed outline.
        title: First line.
        subtitle: Second line.
        units: Of the map's values.
        sign: What the sign of the map means.
        limit: Magnitude at which colors saturate; None takes the 99.5th percentile.
        windows: Black and white point per image channel; None takes them from the image.
    """

    map: DisplayVolume
    image: DisplayVolume | None = None
    prediction: Array | None = None
    reference: Array | None = None
    title: str = ""
    subtitle: str = ""
    units: str = ""
    sign: Sign = "signed"
    limit: float | None = None
    windows: tuple[tuple[float, float], ...] | None = None
    peak: tuple[int, int, int] = field(init=False)

    def __post_init__(self) -> None:
        total = self.map.channel_sum()
        if self.limit is None:
            shared = (total, *self.map.data) if len(self.map.data) > 1 else (total,)
            object.__setattr__(self, "limit", robust_limit(*shared))
        if self.windows is None and self.image is not None:
            found = tuple(gray_window(channel) for channel in self.image.data)
            object.__setattr__(self, "windows", found)
        object.__setattr__(self, "peak", strongest(total))

    @cached_property
    def projections(self) -> tuple[Array, ...]:
        """The strongest value along each of the three axes, with its sign."""
        total = self.map.channel_sum()
        return tuple(signed_projection(total, axis) for axis in range(3))

    @cached_property
    def projection_limit(self) -> float:
        """The limit of all projections: their 99.5th percentile, as they gather the largest."""
        return robust_limit(*self.projections)

    @cached_property
    def colored(self) -> bool:
        """Whether the background is a color picture."""
        return self.image is not None and is_color(self.image)

    @cached_property
    def backdrop(self) -> Array:
        """The background under the sum over channels; a color picture by its luminance."""
        if self.image is not None and self.colored:
            return np.asarray(rgb(self.image) @ (0.2126, 0.7152, 0.0722) * 0.7)
        return self.gray()

    def picture(self) -> Array:
        """The background without a map: ``(X, Y, Z, 3)`` of a color picture, else the grays."""
        if self.image is not None and self.colored:
            return rgb(self.image)
        return self.backdrop / _DIM

    def gray(self, channel: int = 0) -> Array:
        """Background ``(X, Y, Z)`` in 0 to 1, darker than white so that colors stand out."""
        if self.image is None or self.windows is None:
            return np.full(self.map.shape, VOID, dtype=np.float32)
        index = min(channel, len(self.image.data) - 1)
        low, high = self.windows[index]
        scaled = (np.nan_to_num(self.image.data[index]).astype(np.float32) - low) / (high - low)
        return np.asarray(np.clip(scaled, 0, 1) * _DIM)


def is_color(image: DisplayVolume) -> bool:
    """Whether three channels of a 2-D picture are red, green and blue."""
    if not (image.picture and len(image.data) == 3):
        return False
    names = tuple(name.lower() for name in image.channels)
    plain = all(name.startswith("channel") for name in names)
    return plain or names in {("red", "green", "blue"), ("r", "g", "b")}


def rgb(image: DisplayVolume) -> Array:
    """``(X, Y, Z, 3)`` colors in 0 to 1 of a color picture with values to 1, 255 or 65535."""
    data = np.nan_to_num(np.moveaxis(image.data, 0, -1)).astype(np.float64)
    top = data.max(initial=0.0)
    white = next((white for white in (1.0, 255.0, 65535.0) if top <= white), top)
    return np.clip(data / white, 0, 1)


def flat(like: DisplayVolume, values: Array) -> Array:
    """``(rows, columns)`` or ``(rows, columns, 3)`` of a 2-D volume's values, as displayed."""
    if like.picture:
        return values[:, :, 0]
    plane = plane_of(like.shape)
    if values.ndim == 3:
        return plane.cut(values, 0)
    return np.stack([plane.cut(part, 0) for part in np.moveaxis(values, -1, 0)], axis=-1)
