"""The intensity range of an image, to which noise levels are relative."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor


def intensity_range(image: Tensor, kind: Literal["robust", "minmax"] = "robust") -> Tensor:
    """Range per channel, ``(C, 1, ..., 1)``.

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
    """Everything but a constant background: a corner value that fills more than 1 %.

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
