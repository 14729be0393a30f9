"""Connected components of a mask, the largest first; diagonal neighbors are connected."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor


def component_sizes(mask: Tensor) -> list[int]:
    """How many positions each component of a mask ``(*spatial)`` has, the largest first."""
    return sorted(_labeled(mask)[1].tolist(), reverse=True)


def component(mask: Tensor, number: int) -> Tensor:
    """One component of a mask ``(*spatial)``, ``(*spatial)`` bool.

    Args:
        mask: The mask.
        number: Its rank by size, 1 for the largest; of equal ones the first one comes first.

    Raises:
        IndexError: If there are fewer.
    """
    labels, sizes = _labeled(mask)
    label = np.argsort(-sizes, kind="stable")[number - 1] + 1
    return torch.from_numpy(labels == label).to(mask.device)


def _labeled(mask: Tensor) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The number of the component at each position, from 1, and the size of each."""
    labels, _ = ndimage.label(mask.cpu().numpy(), structure=np.ones((3,) * mask.ndim))
    return labels, np.bincount(labels.ravel())[1:]
