"""A mode that changes nothing and writes down the attention weights of a forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from voxplain.engine.rules.call_recorder import layer_paths
from voxplain.engine.rules.calls import Call, OperationKind
from voxplain.engine.rules.decompositions import decomposition
from voxplain.engine.rules.guard import guard
from voxplain.engine.rules.mode import RuleMode
from voxplain.engine.tensors import storage_key

Path = Callable[[], str]


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """The weights of one attention for one image.

    Attributes:
        path: Of the innermost module that was running.
        weights: ``(maps, queries, keys)``, rows sum to 1; one map per head, or per window and
            head.
    """

    path: str
    weights: Tensor


class AttentionListing(RuleMode):
    """Catches what a softmax over keys gave and a product with values took.

    Fused functions are run in parts beside themselves, so that their weights are seen.

    Args:
        path: Tells the path of the layer that is running.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.found: list[AttentionMap] = []
        self._path = path
        self._candidates: dict[int, Tensor] = {}

    def treat(self, call: Call, native: Callable[[], Any]) -> Any:
        """Looks at softmaxes and at products that follow them."""
        fused = call.family is OperationKind.ATTENTION and decomposition(call)
        if fused:
            with self:
                fused()
            return native()
        result = native()
        if call.name == "softmax" and isinstance(result, Tensor):
            self._consider(call, result)
        elif call.family is OperationKind.BILINEAR:
            self._confirm(call)
        elif call.family in (OperationKind.DROPOUT, OperationKind.LINEAR) and isinstance(
            result, Tensor
        ):
            self._carry(call, result)
        return result

    def _consider(self, call: Call, result: Tensor) -> None:
        axis = call.get("dim")
        if result.dim() >= 2 and axis is not None and axis % result.dim() == result.dim() - 1:
            self._candidates[storage_key(result)] = result

    def _carry(self, call: Call, result: Tensor) -> None:
        """A dropout in evaluation mode, or a change of type, hands the weights on."""
        for operand in call.operands():
            known = self._candidates.get(storage_key(operand))
            if known is not None and known.shape == operand.shape == result.shape:
                self._candidates[storage_key(result)] = result

    def _confirm(self, call: Call) -> None:
        for operand in call.operands():
            weights = self._candidates.get(storage_key(operand))
            if weights is not None and weights.numel() == operand.numel():
                maps = weights.detach().reshape(-1, *weights.shape[-2:])
                self.found.append(AttentionMap(self._path(), maps))
                self._candidates.clear()
                return


def attention_maps(
    forward: Callable[[Tensor], Tensor], network: nn.Module, image: Tensor
) -> list[AttentionMap]:
    """The attention weights of one forward, in the order in which they were used.

    Args:
        forward: The network as the model calls it.
        network: Whose layers are named.
        image: ``(1, C, *spatial)``.
    """
    with torch.inference_mode(False), torch.no_grad(), guard(network), layer_paths(network) as path:
        mode = AttentionListing(path)
        with mode:
            forward(image)
    return mode.found
