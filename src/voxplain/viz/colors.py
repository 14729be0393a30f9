"""Colors of maps: diverging and sequential ramps of even lightness, transparent near zero."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Sign = Literal["signed", "absolute", "positive"]

THRESHOLD = 0.05
"""Share of the color limit below which a map is transparent unless another share is chosen."""

OPACITY = 0.8
"""Opacity of a map at its color limit."""

# Lightness, chroma and hue in OKLCH at both ends of each ramp. The two halves of the diverging
# scale have the same lightness at the same magnitude, and orange against blue stays apart for
# readers without red-green vision.
_ENDS = {
    "positive": ((0.52, 0.15, 40.0), (0.90, 0.15, 88.0)),
    "negative": ((0.52, 0.15, 262.0), (0.90, 0.11, 205.0)),
    "sequential": ((0.45, 0.16, 305.0), (0.92, 0.10, 435.0)),
}


def ramp(name: str, count: int = 256) -> NDArray[np.uint8]:
    """``(count, 3)`` sRGB colors of a ramp, from weak to strong."""
    start, end = _ENDS[name]
    lch = np.linspace(start, end, count)
    return np.round(_to_srgb(lch) * 255).astype(np.uint8)


def colorize(
    values: Array, limit: float, sign: Sign = "signed", threshold: float = THRESHOLD
) -> NDArray[np.float64]:
    """Colors of a map with straight alpha, ``(..., 4)`` in 0 to 1.

    The color follows ``|value| / limit``; the opacity grows from zero at the threshold to
    :data:`OPACITY` at the limit. NaN is transparent.

    Args:
        values: Any shape.
        limit: Magnitude at which the color saturates.
        sign: Diverging colors for ``signed``, sequential ones otherwise.
        threshold: Share of the limit below which nothing is shown.
    """
    share = np.clip(np.nan_to_num(np.asarray(values, dtype=np.float64)) / limit, -1, 1)
    magnitude = np.abs(share)
    step = np.round(magnitude * 255).astype(int)
    if sign == "signed":
        color = np.where((share < 0)[..., None], ramp("negative")[step], ramp("positive")[step])
    else:
        color = ramp("sequential")[step]
    alpha = np.clip((magnitude - threshold) / max(1 - threshold, 1e-9), 0, 1) ** 0.6 * OPACITY
    return np.asarray(np.concatenate([color / 255, alpha[..., None]], axis=-1))


def blend(gray: Array, overlay: Array) -> NDArray[np.float64]:
    """Colors ``(..., 3)`` of an overlay ``(..., 4)`` on a background ``(...)`` or ``(..., 3)``.

    All values are in 0 to 1.
    """
    base = gray[..., None].repeat(3, axis=-1) if gray.ndim == overlay.ndim - 1 else gray
    alpha = overlay[..., 3:]
    return np.asarray(base * (1 - alpha) + overlay[..., :3] * alpha)


def color_bar(sign: Sign, limit: float, threshold: float = THRESHOLD, count: int = 512) -> Array:
    """Colors ``(count, 4)`` of a color bar, from low to high values."""
    values = np.linspace(-limit if sign == "signed" else 0.0, limit, count)
    return colorize(values, limit, sign, threshold)


def _to_srgb(lch: Array) -> NDArray[np.float64]:
    lightness, chroma, hue = np.moveaxis(np.asarray(lch, dtype=np.float64), -1, 0)
    a, b = chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))
    lab = np.stack([lightness, a, b], axis=-1)
    cone = (lab @ _LAB_TO_CONE.T) ** 3
    linear = np.clip(cone @ _CONE_TO_RGB.T, 0, 1)
    curved = 1.055 * linear ** (1 / 2.4) - 0.055
    return np.asarray(np.where(linear <= 0.0031308, 12.92 * linear, curved))


# Ottosson's OKLab (2020).
_LAB_TO_CONE = np.array(
    [
        [1, 0.3963377774, 0.2158037573],
        [1, -0.1055613458, -0.0638541728],
        [1, -0.0894841775, -1.2914855480],
    ]
)
_CONE_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
