"""The published link between concepts, for comparison: it measures the size of the target alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from voxplain.concepts.links.nodes import ConceptUnits
from voxplain.concepts.links.significance import Array, numbers


def size_driven_links(
    activation: Tensor,
    sources: Sequence[ConceptUnits],
    targets: Sequence[ConceptUnits],
    bins: int = 100,
) -> Array:
    """Mutual information of a layer with and without all channels but those of a target.

    It is normalized and averaged over all channels, as published. A channel that is kept has 1 and
    one that is removed has 0, so that the link is |C_j| / K whatever the source is. Use
    :func:`voxplain.concepts.links.analysis.link`.

    Paper: Kori et al., Abstracting deep neural networks into concept graphs, 2020.

    Args:
        activation: Of the layer of the targets, ``(K, *cells)``.
        sources: Nodes of the earlier layer; they make no difference.
        targets: Nodes of channels.
        bins: Of the histograms.

    Returns:
        ``(sources, targets)``.
    """
    values = numbers(activation.flatten(1))
    row = [_kept(values, target.units.channels, bins) for target in targets]
    return np.array([row for _ in sources])


def _kept(values: Array, channels: Sequence[int], bins: int) -> float:
    kept = np.zeros_like(values)
    kept[list(channels)] = values[list(channels)]
    pairs = zip(values, kept, strict=True)
    return float(np.mean([_mutual_information(first, second, bins) for first, second in pairs]))


def _mutual_information(first: Array, second: Array, bins: int) -> float:
    """I(X; Y) / sqrt(H(X) H(Y)) of histograms; 0 where one of them is constant."""
    joint, _, _ = np.histogram2d(first, second, bins)
    joint = joint / joint.sum()
    entropies = [_entropy(joint.sum(axis=axis)) for axis in (1, 0)]
    scale = float(np.sqrt(entropies[0] * entropies[1]))
    return (sum(entropies) - _entropy(joint.ravel())) / scale if scale > 0 else 0.0


def _entropy(shares: Array) -> float:
    known = shares[shares > 0]
    return float(-(known * np.log(known)).sum())
