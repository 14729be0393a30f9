"""Groups of channels with correlated activations, for layers with more channels than masks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Groups = tuple[tuple[int, ...], ...]
"""Channels that are masked together; groups are in the order of their first channels."""


def group_channels(activation: Tensor, max_groups: int | None = None) -> Groups:
    """Groups of channels with correlated activations, by average linkage (deterministic).

    Constant channels form a group of their own.

    Args:
        activation: ``(K, *cells)``.
        max_groups: Largest number of groups; None for one per channel.
    """
    flat = activation.detach().flatten(1).double().cpu()
    if max_groups is None or len(flat) <= max_groups:
        return tuple((channel,) for channel in range(len(flat)))
    centered = flat - flat.mean(dim=1, keepdim=True)
    norms = centered.norm(dim=1)
    constant = norms <= 1e-12 * flat.norm(dim=1).clamp_min(1e-300)
    numbers = np.zeros(len(flat), dtype=int)
    varying = (~constant).nonzero().flatten()
    clusters = max(1, max_groups - int(constant.any()))
    if len(varying):
        numbers[varying] = _cluster(centered[varying] / norms[varying, None], clusters)
    groups: dict[int, list[int]] = {}
    for channel, number in enumerate(numbers.tolist()):
        groups.setdefault(number, []).append(channel)
    return tuple(tuple(channels) for channels in groups.values())


def group_sums(activation: Tensor, groups: Groups) -> Tensor:
    """The summed activation of each group, ``(groups, *cells)``."""
    return torch.stack([activation[list(group)].sum(dim=0) for group in groups])


def _cluster(directions: Tensor, clusters: int) -> np.ndarray:
    """The number of the cluster of each row of unit length, from 1."""
    from scipy.cluster.hierarchy import fcluster, linkage  # slow to import

    if len(directions) <= clusters:
        return np.arange(1, len(directions) + 1)
    above = np.triu_indices(len(directions), k=1)
    distances = (1 - directions @ directions.T).clamp(0, 2).numpy()[above]
    return np.asarray(fcluster(linkage(distances, "average"), clusters, "maxclust"), dtype=int)
