"""Reducers for masks that are channels of a layer: weighted activations, effects of channels."""

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
    """sum_k w_k A_k at the layer, w_k from the score of what channel k shows of the image.

    Attributes:
        weighting: ``increase`` is max(0, S_k - S(nothing shown)), scaled to sum 1; ``softmax``
            is that of the scores.
    """

    weighting: Weighting = "increase"

    def reduce(self, masks: Masks, scores: Tensor, whole: float) -> Reduction:
        """``(1, *cells)``."""
        if not isinstance(masks, ActivationMasks):
            raise TypeError("these weights are for the channels of a layer as masks")
        shown, empty = scores[:-1], scores[-1]
        if self.weighting == "softmax":
            weights = functional.softmax(shown, dim=0)
        else:
            weights = functional.relu(shown - empty)
            if not weights.any():
                return _none_raises(masks)
            weights = weights / weights.sum()
        return _combined(masks.activation, weights, masks.groups)


@dataclass(frozen=True)
class AblationWeights(MaskReducer):
    """sum_k w_k A_k at the layer, w_k = (S - S_k) / |S| where channel k is replaced."""

    def reduce(self, masks: Masks, scores: Tensor, whole: float) -> Reduction:
        """``(1, *cells)``; where S is 0 the differences themselves are the weights."""
        if not isinstance(masks, LayerChannels):
            raise TypeError("these weights are for channels that are replaced")
        weights = (whole - scores) / (abs(whole) or 1.0)
        return _combined(group_sums(masks.activation, masks.groups), weights, masks.groups)


@dataclass(frozen=True)
class DropOfChannels(MaskReducer):
    """S - S_k on every cell of the channels that were replaced together."""

    def reduce(self, masks: Masks, scores: Tensor, whole: float) -> Reduction:
        """``(K, *cells)``."""
        if not isinstance(masks, LayerChannels):
            raise TypeError("effects of channels are for channels that are replaced")
        drops = torch.zeros(len(masks.activation), dtype=torch.float64)
        for group, drop in zip(masks.groups, (whole - scores).tolist(), strict=True):
            drops[list(group)] = drop
        column = drops.view(-1, *(1,) * (masks.activation.ndim - 1))
        findings = _listed(drops, about=f"channels of {masks.tap.path}")
        return Reduction(column.expand(masks.activation.shape), findings=findings)


def _none_raises(masks: ActivationMasks) -> Reduction:
    text = "no channel by itself raises the score above that of an image of which nothing is shown"
    return Reduction(torch.zeros_like(masks.activation[:1]), findings={"note": text})


def _combined(activation: Tensor, weights: Tensor, groups: Groups) -> Reduction:
    """The weighted sum of channels, and which had the largest weights."""
    wide = activation.double().cpu()
    total = torch.tensordot(weights.double(), wide, dims=1)[None]
    return Reduction(total, findings=_listed(weights, groups))


def _listed(
    values: Tensor,
    groups: Sequence[Sequence[int]] | None = None,
    about: str = "channels",
    most: int = 64,
) -> dict[str, list[dict[str, Any]]]:
    order = values.abs().argsort(descending=True, stable=True)[:most].tolist()
    return {
        about: [
            {"channels": list(groups[index]) if groups else [index], "value": float(values[index])}
            for index in order
            if float(values[index])
        ]
    }
