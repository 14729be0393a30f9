"""A map, the image and masks drawn with it, and the scales of both."""

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
"""Gray of the white point, so that the colors of a map stand out."""


@dataclass(frozen=True, eq=False)
class Overlay:
    """A map on an image, with masks, texts and scales: what a figure shows.

    Attributes:
        map: The map, on canonical axes or a picture.
        image: The background, on the voxels of the map; None leaves it dark.
        prediction: ``(X, Y, Z)`` mask drawn as a solid outline.
        reference: ``(X, Y, Z)`` mask drawn as a dashed outline.
        title: First line of text.
        subtitle: Second line of text.
        units: Of the map's values.
        sign: What the sign of the map means.
        limit: Magnitude at which colors saturate; None takes the 99.5th percentile.
        windows: Black and white point per image channel; None takes them from the image.
        peak: Index of the strongest voxel of the sum over channels.
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
            windows = tuple(gray_window(channel) for channel in self.image.data)
            object.__setattr__(self, "windows", windows)
        object.__setattr__(self, "peak", strongest(total))

    @cached_property
    def projections(self) -> tuple[Array, ...]:
        """The strongest value along each of the three axes, with its sign."""
        total = self.map.channel_sum()
        return tuple(signed_projection(total, axis) for axis in range(3))

    @cached_property
    def projection_limit(self) -> float:
        """The color limit of the projections, the 99.5th percentile of all three."""
        return robust_limit(*self.projections)

    @cached_property
    def colored(self) -> bool:
        """Whether the background is a color picture."""
        return self.image is not None and is_color(self.image)

    @cached_property
    def backdrop(self) -> Array:
        """The background ``(X, Y, Z)`` of a map's sum; a color picture by its luminance."""
        if self.image is not None and self.colored:
            return np.asarray(rgb(self.image) @ (0.2126, 0.7152, 0.0722) * 0.7)
        return self.gray()

    def picture(self) -> Array:
        """The image alone: ``(X, Y, Z, 3)`` of a color picture, else ``(X, Y, Z)``."""
        if self.image is not None and self.colored:
            return rgb(self.image)
        return self.backdrop / _DIM

    def gray(self, channel: int = 0) -> Array:
        """An image channel as grays ``(X, Y, Z)`` from 0 to at most 0.8."""
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
    """Colors ``(X, Y, Z, 3)`` in 0 to 1 of a color picture with values up to 1, 255 or 65535."""
    data = np.nan_to_num(np.moveaxis(image.data, 0, -1)).astype(np.float64)
    top = data.max(initial=0.0)
    white = next((white for white in (1.0, 255.0, 65535.0) if top <= white), top)
    return np.clip(data / white, 0, 1)


def flat(volume: DisplayVolume, values: Array) -> Array:
    """Values on a 2-D volume as displayed, ``(rows, columns)`` or ``(rows, columns, 3)``."""
    if volume.picture:
        return values[:, :, 0]
    plane = plane_of(volume.shape)
    if values.ndim == 3:
        return plane.cut(values, 0)
    return np.stack([plane.cut(color, 0) for color in np.moveaxis(values, -1, 0)], axis=-1)
