"""The step that normalizes intensities as the network was trained on them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor

from voxplain.errors import ConfigError, VoxplainWarning
from voxplain.image import Image
from voxplain.preprocess.step import Step

Mode = Literal["zscore", "minmax", "percentile", "hu_window", "scale"]


class Normalize(Step):
    """An affine change of intensity, x -> (x - shift) / scale, which the image records.

    ==============  =========================================================================
    mode            meaning
    ==============  =========================================================================
    ``zscore``      shift = mean, scale = standard deviation
    ``minmax``      minimum and maximum become the ends of ``output``
    ``percentile``  the two ``percentiles`` become the ends of ``output``, values beyond are cut
    ``hu_window``   the ends of ``window`` become the ends of ``output``, values beyond are cut
    ``scale``       shift = ``subtract``, scale = ``divide``
    ==============  =========================================================================

    Attributes:
        mode: See the table.
        foreground: Whether statistics are those of the foreground alone.
        threshold: Lower limit of the foreground; None for all voxels that are not 0.
        keep_background: With ``foreground``, set the background to 0 after the step.
        per_channel: Whether each channel has its own statistics.
        percentiles: Lower and upper percentile, 0 to 100.
        window: Lower and upper HU, such as ``(-1000, 400)`` for lungs.
        output: Range to which minimum and maximum, percentiles or window ends are mapped.
        clip: Whether values beyond ``output`` are cut (percentile and HU window).
        subtract: One number, or one per channel.
        divide: One number, one per channel, or ``"maximum"``.
    """

    kind: Literal["normalize"] = "normalize"
    mode: Mode = "zscore"
    foreground: bool = False
    threshold: float | None = None
    keep_background: bool = True
    per_channel: bool = True
    percentiles: tuple[float, float] = (0.5, 99.5)
    window: tuple[float, float] | None = None
    output: tuple[float, float] = (0.0, 1.0)
    clip: bool = True
    subtract: float | tuple[float, ...] = 0.0
    divide: float | tuple[float, ...] | Literal["maximum"] = 1.0

    @model_validator(mode="after")
    def _ranges_grow(self) -> Normalize:
        if self.mode == "hu_window" and self.window is None:
            raise ValueError("mode hu_window needs a window, such as [-1000, 400]")
        for name in ("percentiles", "window", "output"):
            ends = getattr(self, name)
            if ends is not None and not ends[0] < ends[1]:
                raise ValueError(f"{name} must grow, and {list(ends)} does not")
        if self.percentiles[0] < 0 or self.percentiles[1] > 100:
            raise ValueError(f"percentiles lie in 0 to 100, and {list(self.percentiles)} do not")
        if 0 in (self.divide if isinstance(self.divide, tuple) else (self.divide,)):
            raise ValueError("divide cannot be 0")
        return self

    def apply(self, image: Image) -> Image:
        """The image with new intensities on the same grid."""
        mask = self._foreground(image.data)
        pairs = self._shifts_and_scales(image, mask)
        per_channel = (-1,) + (1,) * image.rank
        shift, scale = (
            torch.tensor(numbers, dtype=torch.float64).to(image.data).view(per_channel)
            for numbers in zip(*pairs, strict=True)
        )
        data = (image.data - shift) / scale
        if self.clip and self.mode in ("percentile", "hu_window"):
            data = data.clamp(*self.output)
        if self.foreground and self.keep_background:
            data = data * mask
        return replace(image, data=data, intensity=composed(image, pairs))

    def _foreground(self, data: Tensor) -> Tensor:
        if not self.foreground:
            return torch.ones_like(data, dtype=torch.bool)
        return data != 0 if self.threshold is None else data > self.threshold

    def _shifts_and_scales(self, image: Image, mask: Tensor) -> list[tuple[float, float]]:
        if self.mode == "scale":
            return self._fixed(image)
        if self.mode == "hu_window" and self.window is not None:
            return [self._between(*self.window)] * len(image.data)
        if not self.per_channel:
            return [self._measured(image.data[mask], "the image")] * len(image.data)
        channels = zip(image.data, mask, image.channels, strict=True)
        return [self._measured(data[inside], name) for data, inside, name in channels]

    def _measured(self, values: Tensor, name: str) -> tuple[float, float]:
        """Shift and scale by the values of the foreground, ``(n,)``."""
        if len(values) == 0:
            return _constant(name, "has no foreground", 0.0)
        sample = values.double().cpu().numpy()
        if self.mode == "zscore":
            mean, deviation = float(sample.mean()), float(sample.std())
            return (mean, deviation) if deviation > 0 else _constant(name, "is constant", mean)
        ends = (0.0, 100.0) if self.mode == "minmax" else self.percentiles
        low, high = (float(end) for end in np.percentile(sample, ends))
        return self._between(low, high) if high > low else _constant(name, "is constant", low)

    def _between(self, low: float, high: float) -> tuple[float, float]:
        scale = (high - low) / (self.output[1] - self.output[0])
        return low - self.output[0] * scale, scale

    def _fixed(self, image: Image) -> list[tuple[float, float]]:
        count = len(image.data)
        shift = _per_channel(self.subtract, count, "subtract")
        if self.divide != "maximum":
            return list(zip(shift, _per_channel(self.divide, count, "divide"), strict=True))
        maxima = [float(channel.max()) for channel in image.data]
        maxima = maxima if self.per_channel else [max(maxima)] * count
        channels = zip(shift, maxima, image.channels, strict=True)
        return [
            (low, high - low) if high > low else _constant(name, "is constant", low)
            for low, high, name in channels
        ]


def _per_channel(value: float | tuple[float, ...], count: int, name: str) -> list[float]:
    values = value if isinstance(value, tuple) else (value,) * count
    if len(values) != count:
        raise ConfigError(f"normalize.{name} has {len(values)} values for {count} channels")
    return list(values)


def _constant(name: str, reason: str, shift: float) -> tuple[float, float]:
    text = f"normalize: {name} {reason}; it was shifted but not scaled"
    warnings.warn(text, VoxplainWarning, stacklevel=2)
    return shift, 1.0


def composed(image: Image, pairs: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Slope and intercept from intensities after a step to those of the source file.

    Args:
        image: Before the step.
        pairs: Shift and scale of each channel.
    """
    before = image.intensity or ((1.0, 0.0),) * len(pairs)
    channels = zip(before, pairs, strict=True)
    return tuple(
        (slope * scale, slope * shift + intercept)
        for (slope, intercept), (shift, scale) in channels
    )
