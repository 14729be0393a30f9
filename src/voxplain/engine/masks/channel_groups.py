"""Groups of channels that light up together, for layers with more channels than masks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Groups = tuple[tuple[int, ...], ...]
"""Channels that are treated as one, in the order of their first ones."""


def grouped(activation: Tensor, most: int | None = None) -> Groups:
    """Every channel alone, or the most alike together.

    Channels are alike where their activations are correlated; groups are merged by average
    linkage, which draws nothing at random. Constant channels form a group of their own.

    Args:
        activation: ``(K, *cells)``.
        most: Number of groups; None for one per channel.
    """
    flat = activation.detach().flatten(1).double().cpu()
    if most is None or len(flat) <= most:
        return tuple((channel,) for channel in range(len(flat)))
    centered = flat - flat.mean(dim=1, keepdim=True)
    norms = centered.norm(dim=1)
    constant = norms <= 1e-12 * flat.norm(dim=1).clamp_min(1e-300)
    numbers = np.zeros(len(flat), dtype=int)
    varying = (~constant).nonzero().flatten()
    room = max(1, most - int(constant.any()))
    if len(varying):
        numbers[varying] = _clustered(centered[varying] / norms[varying, None], room)
    first: dict[int, list[int]] = {}
    for channel, number in enumerate(numbers.tolist()):
        first.setdefault(number, []).append(channel)
    return tuple(tuple(channels) for channels in first.values())


def group_sums(activation: Tensor, groups: Groups) -> Tensor:
    """The activation of each group, ``(groups, *cells)``."""
    return torch.stack([activation[list(group)].sum(dim=0) for group in groups])


def _clustered(directions: Tensor, most: int) -> np.ndarray:
    """A number from 1 for each row of unit length."""
    from scipy.cluster.hierarchy import fcluster, linkage  # takes a while to import

    if len(directions) <= most:
        return np.arange(1, len(directions) + 1)
    above = np.triu_indices(len(directions), k=1)
    distances = (1 - directions @ directions.T).clamp(0, 2).numpy()[above]
    return np.asarray(fcluster(linkage(distances, "average"), most, "maxclust"), dtype=int)
