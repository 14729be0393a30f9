"""Backward passes through one layer only: what does not pass it is left out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from voxplain.engine.rules import ThroughLayer
from voxplain.engine.taps import Tap
from voxplain.errors import ModelError, TargetError


def relevance_at(
    through_value: Tensor,
    score: Tensor,
    cotangent: Tensor | None,
    through: ThroughLayer,
    arrange: Callable[[Tap, Tensor], Tensor],
) -> Tensor:
    """Gradient or relevance at a layer, in the chosen channels; 0 in the others.

    Args:
        through_value: The value of the layer, in the graph.
        score: Of an output, or the output itself.
        cotangent: The seed at an output.
        through: The layer and its channels.
        arrange: Brings the layer to ``(k, K, *cells)``.

    Raises:
        TargetError: If the score does not depend on the layer.
        ModelError: If the layer does not have the channels.
    """
    (gradient,) = torch.autograd.grad(
        score, through_value, cotangent, retain_graph=True, allow_unused=True
    )
    if gradient is None:
        raise TargetError(f"nothing of the score passes through layer {through.path!r}")
    if through.channels is None:
        return gradient
    return _only(gradient, list(through.channels), through.path, arrange)


def _only(
    gradient: Tensor, channels: list[int], path: str, arrange: Callable[[Tap, Tensor], Tensor]
) -> Tensor:
    """The same with 0 in all other channels, wherever the layer has its channel axis."""
    leaf = gradient.detach().requires_grad_(True)
    arranged = arrange(Tap(path), leaf)
    count = arranged.shape[1]
    if not all(0 <= channel < count for channel in channels):
        raise ModelError(f"layer {path!r} has channels 0 to {count - 1}, not all of {channels}")
    kept = torch.zeros_like(arranged)
    kept[:, channels] = arranged.detach()[:, channels]
    return torch.autograd.grad(arranged, leaf, kept)[0]
