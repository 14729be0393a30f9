"""A layer that everything has to pass on its way from the score to the image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from voxplain.engine.rules import ThroughLayer
from voxplain.engine.taps import Tap
from voxplain.errors import ModelError, TargetError


def arriving(
    score: Tensor,
    cotangent: Tensor | None,
    through_value: Tensor,
    through: ThroughLayer,
    arrange: Callable[[Tap, Tensor], Tensor],
) -> Tensor:
    """What arrives at a layer, in the channels that may pass; 0 in the others.

    Args:
        score: Of an output, or the output itself.
        cotangent: What enters at an output.
        through_value: The value of the layer, in the graph.
        through: The layer and its channels.
        arrange: Brings the layer to ``(k, K, *cells)``.

    Raises:
        TargetError: If the score does not depend on the layer.
        ModelError: If the layer does not have the channels.
    """
    (found,) = torch.autograd.grad(
        score, through_value, cotangent, retain_graph=True, allow_unused=True
    )
    if found is None:
        raise TargetError(f"nothing of the score passes through layer {through.path!r}")
    if through.channels is None:
        return found
    return _only(found, list(through.channels), through.path, arrange)


def _only(
    found: Tensor, channels: list[int], path: str, arrange: Callable[[Tap, Tensor], Tensor]
) -> Tensor:
    """The same with 0 in all other channels, wherever the layer has its channel axis."""
    leaf = found.detach().requires_grad_(True)
    arranged = arrange(Tap(path), leaf)
    count = arranged.shape[1]
    if not all(0 <= channel < count for channel in channels):
        raise ModelError(f"layer {path!r} has channels 0 to {count - 1}, not all of {channels}")
    kept = torch.zeros_like(arranged)
    kept[:, channels] = arranged.detach()[:, channels]
    return torch.autograd.grad(arranged, leaf, kept)[0]
