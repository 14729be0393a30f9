"""The intensity range of an image, to which noise levels are relative."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor


def intensity_range(image: Tensor, kind: Literal["robust", "minmax"] = "robust") -> Tensor:
    """Range per channel, ``(C, 1, ..., 1)``.

    Args:
        image: ``(C, *spatial)``.
        kind: ``robust`` is q99.5 - q0.5 of the foreground, which is everything but a constant
            background (a corner value that fills more than 1 % of the channel); ``minmax`` the
            whole range.
    """
    flat = image.detach().flatten(1) if image.ndim > 1 else image.detach()[None]
    spans = [_robust(row) if kind == "robust" else float(row.amax() - row.amin()) for row in flat]
    if image.ndim == 1:
        spans = spans * len(image)
    return image.new_tensor(spans).view(-1, *(1,) * (image.ndim - 1))


def _robust(values: Tensor) -> float:
    array = values.double().cpu().numpy()
    inside = array
    for corner in {array[0], array[-1]}:
        background = array == corner
        if 0.01 < background.mean() < 1:
            inside = array[~background]
            array = inside
    low, high = np.quantile(inside, [0.005, 0.995])
    return float(high - low) or float(values.amax() - values.amin())
