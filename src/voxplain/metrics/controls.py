"""Controls: maps that explain nothing, scored beside those that should."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from voxplain.engine.randomness import generator
from voxplain.metrics.context import MetricContext
from voxplain.metrics.maps import MapField

CONTROLS = ("random", "edges", "intensity", "center", "reference")
"""Names of the controls; ``reference`` only where there is a mask."""


def control_maps(context: MetricContext) -> list[MapField]:
    """Every control for one image, each ``(1, *spatial)``.

    The random map is signed and as smooth as the image, whose spectrum it has; the others are
    positive.
    """
    image, key = context.input.image, context.input.key
    controls = {
        "random": random_map(image, key),
        "edges": edges(image, context.spacing),
        "intensity": image.abs().sum(dim=0),
        "center": center(context.engine.shape).to(image),
    }
    if context.reference is not None and bool(context.reference.any()):
        controls["reference"] = context.reference.to(image)
    return [
        MapField(name, values[None], "signed" if name == "random" else "positive", key=key)
        for name, values in controls.items()
    ]


def random_map(image: Tensor, key: str) -> Tensor:
    """Noise with the amplitudes of the image's spectrum and random phases, ``(*spatial)``."""
    values = image.double().sum(dim=0).cpu()
    draws = torch.randn(values.numel(), generator=generator(key, "random map"), dtype=torch.float64)
    noise = torch.fft.fftn(draws.view(values.shape))
    amplitude = torch.fft.fftn(values - values.mean()).abs()
    phases = noise / noise.abs().clamp_min(1e-30)
    smooth: Tensor = torch.fft.ifftn(amplitude * phases).real
    return smooth.to(image)


def edges(image: Tensor, spacing: tuple[float, ...]) -> Tensor:
    """Sobel magnitude per millimeter, the root of the squares over channels, ``(*spatial)``."""
    total = np.zeros(tuple(image.shape[1:]))
    axes = [axis for axis, side in enumerate(image.shape[1:]) if side > 1]
    for channel in image.double().cpu().numpy():
        for axis in axes:
            slope = ndimage.correlate1d(channel, [-0.5, 0.0, 0.5], axis=axis, mode="nearest")
            for other in axes:
                if other != axis:
                    smooth = [0.25, 0.5, 0.25]
                    slope = ndimage.correlate1d(slope, smooth, axis=other, mode="nearest")
            total += (slope / spacing[axis]) ** 2
    return torch.from_numpy(np.sqrt(total)).to(image)


def center(shape: tuple[int, ...]) -> Tensor:
    """A Gaussian in the middle, sigma a quarter of each axis, ``(*spatial)``."""
    total = torch.zeros(shape, dtype=torch.float64)
    for axis, side in enumerate(shape):
        steps = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) / max(1.0, side / 4)
        view = [side if other == axis else 1 for other in range(len(shape))]
        total = total + steps.view(view) ** 2
    return torch.exp(-total / 2) / math.sqrt(2 * math.pi)
