"""Reducers for channels of a layer: weighted sums of activations, effects of channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from voxplain.engine.masks.channel_groups import Groups, group_sums
from voxplain.engine.masks.dense import ActivationMasks
from voxplain.engine.masks.layer_channels import LayerChannels
from voxplain.engine.masks.masks import Masks
from voxplain.engine.masks.reducers.base import MaskReducer, Reduction

Weighting = Literal["increase", "softmax"]


@dataclass(frozen=True)
class ScoreWeights(MaskReducer):
    """sum_k w_k A_k at the layer, w_k from the score S_k of the image masked by channel k.

    Attributes:
        weighting: ``increase`` for max(0, S_k - S(everything removed)), scaled to sum 1;
            ``softmax`` for the softmax of the scores.
    """

    weighting: Weighting = "increase"

    def reduce(self, masks: Masks, scores: Tensor, full_score: float) -> Reduction:
        """``(1, *cells)``."""
        if not isinstance(masks, ActivationMasks):
            raise TypeError("these weights are for the channels of a layer as masks")
        channel_scores, empty = scores[:-1], scores[-1]
        if self.weighting == "softmax":
            weights = functional.softmax(channel_scores, dim=0)
        else:
            weights = functional.relu(channel_scores - empty)
            if not weights.any():
                return _zero_map(masks)
            weights = weights / weights.sum()
        return _weighted_sum(masks.activation, weights, masks.groups)


@dataclass(frozen=True)
class AblationWeights(MaskReducer):
    """sum_k w_k A_k at the layer, w_k = (S - S_k) / |S| with S_k for channel k replaced."""

    def reduce(self, masks: Masks, scores: Tensor, full_score: float) -> Reduction:
        """``(1, *cells)``; if S is 0 the differences themselves are the weights."""
        if not isinstance(masks, LayerChannels):
            raise TypeError("these weights are for channels that are replaced")
        weights = (full_score - scores) / (abs(full_score) or 1.0)
        return _weighted_sum(group_sums(masks.activation, masks.groups), weights, masks.groups)


@dataclass(frozen=True)
class DropOfChannels(MaskReducer):
    """S - S_k on every cell of the channels of group k, which were replaced together."""

    def reduce(self, masks: Masks, scores: Tensor, full_score: float) -> Reduction:
        """``(K, *cells)``."""
        if not isinstance(masks, LayerChannels):
            raise TypeError("effects of channels are for channels that are replaced")
        drops = torch.zeros(len(masks.activation), dtype=torch.float64)
        for group, drop in zip(masks.groups, (full_score - scores).tolist(), strict=True):
            drops[list(group)] = drop
        column = drops.view(-1, *(1,) * (masks.activation.ndim - 1))
        findings = _list_channels(drops, title=f"channels of {masks.tap.path}")
        return Reduction(column.expand(masks.activation.shape), findings=findings)


def _zero_map(masks: ActivationMasks) -> Reduction:
    text = "no channel by itself raises the score above that of an image of which nothing is shown"
    return Reduction(torch.zeros_like(masks.activation[:1]), findings={"note": text})


def _weighted_sum(activation: Tensor, weights: Tensor, groups: Groups) -> Reduction:
    """The weighted sum of channels, with a list of the largest weights."""
    wide = activation.double().cpu()
    total = torch.tensordot(weights.double(), wide, dims=1)[None]
    return Reduction(total, findings=_list_channels(weights, groups))


def _list_channels(
    values: Tensor,
    groups: Sequence[Sequence[int]] | None = None,
    title: str = "channels",
    limit: int = 64,
) -> dict[str, list[dict[str, Any]]]:
    order = values.abs().argsort(descending=True, stable=True)[:limit].tolist()
    return {
        title: [
            {"channels": list(groups[index]) if groups else [index], "value": float(values[index])}
            for index in order
            if float(values[index])
        ]
    }
