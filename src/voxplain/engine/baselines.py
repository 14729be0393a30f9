"""Baselines, and the intensity ranges of images, which are the scale of noise."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import numpy as np
import torch
from pydantic import AfterValidator, SkipValidation
from scipy import ndimage
from torch import Tensor

from voxplain.errors import ConfigError, nearest

NamedBaseline = Literal["zero", "minimum", "maximum", "mean", "blur"]
IntensityRange = Literal["robust", "minmax"]

BLUR = 0.1
"""Sigma of the blurred baseline, as a fraction of each axis."""


def _checked(value: Any) -> Any:
    if isinstance(value, str) and value not in get_args(NamedBaseline):
        raise ValueError(f"unknown baseline {value!r}; {nearest(value, get_args(NamedBaseline))}")
    if isinstance(value, (list, tuple)) and all(_is_number(level) for level in value):
        return tuple(float(level) for level in value)
    if not (isinstance(value, (str, Tensor)) or _is_number(value)):
        raise ValueError("a baseline is a name, a number, one number per channel, or a tensor")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


Baseline = Annotated[
    NamedBaseline | float | tuple[float, ...] | SkipValidation[Tensor], AfterValidator(_checked)
]
"""``zero`` (default), ``minimum`` ("black"), ``maximum``, ``mean``, ``blur``, a number, one
number per channel, or a tensor ``(C, *spatial)``. What 0 means depends on the normalization:
mean tissue after z-scoring, air after min-max scaling; the sidecar states the intensity."""


def baseline_image(baseline: Any, image: Tensor) -> Tensor:
    """The baseline of one image, ``(C, *spatial)``.

    Args:
        baseline: As :data:`Baseline`.
        image: ``(C, *spatial)`` in model space.

    Raises:
        ConfigError: If the channels or the shape do not fit.
    """
    if isinstance(baseline, Tensor):
        if baseline.shape != image.shape:
            raise ConfigError(
                f"a baseline of shape {tuple(baseline.shape)} for an image of shape "
                f"{tuple(image.shape)}"
            )
        return baseline.detach().as_subclass(Tensor).to(image)
    if baseline == "blur":
        return _blurred(image)
    return _levels(baseline, image).view(-1, *(1,) * (image.ndim - 1)).expand_as(image)


def _levels(baseline: Any, image: Tensor) -> Tensor:
    """One intensity per channel, ``(C,)``."""
    flat = image.flatten(1) if image.ndim > 1 else image[:, None]
    named = {
        "zero": lambda: flat.new_zeros(len(flat)),
        "minimum": lambda: flat.amin(dim=1),
        "maximum": lambda: flat.amax(dim=1),
        "mean": lambda: flat.mean(dim=1),
    }
    if isinstance(baseline, str):
        return named[baseline]()
    levels = flat.new_tensor(baseline if isinstance(baseline, tuple) else [baseline])
    if len(levels) not in (1, len(flat)):
        raise ConfigError(f"{len(levels)} baseline values for an image with {len(flat)} channels")
    return levels.expand(len(flat))


def _blurred(image: Tensor) -> Tensor:
    sigma = [0.0, *(BLUR * size for size in image.shape[1:])]
    blurred = ndimage.gaussian_filter(image.double().cpu().numpy(), sigma, mode="nearest")
    return torch.from_numpy(blurred).to(image)


def intensity_range(image: Tensor, kind: IntensityRange = "robust") -> Tensor:
    """Intensity range per channel, ``(C, 1, ..., 1)``.

    Args:
        image: ``(C, *spatial)``.
        kind: ``robust`` is q99.5 - q0.5 of the :func:`foreground`; ``minmax`` the whole range.
    """
    flat = image.detach().flatten(1) if image.ndim > 1 else image.detach()[None]
    spans = [_robust(row) if kind == "robust" else float(row.amax() - row.amin()) for row in flat]
    if image.ndim == 1:
        spans = spans * len(image)
    return image.new_tensor(spans).view(-1, *(1,) * (image.ndim - 1))


def foreground(channel: Tensor) -> Tensor:
    """The voxels that are not constant background: a corner value that fills more than 1 %.

    Args:
        channel: One channel, any shape.

    Returns:
        Bool, of the same shape; never empty.
    """
    flat = channel.detach().flatten()
    inside = torch.ones_like(flat, dtype=torch.bool)
    for corner in {float(flat[0]), float(flat[-1])}:
        background = (flat == corner) & inside
        if 0.01 < int(background.sum()) / int(inside.sum()) < 1:
            inside &= ~background
    return inside.view(channel.shape)


def _robust(values: Tensor) -> float:
    inside = values[foreground(values)].double().cpu().numpy()
    low, high = np.quantile(inside, [0.005, 0.995])
    return float(high - low) or float(values.amax() - values.amin())
