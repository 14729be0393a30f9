"""Attention weights of a forward pass, recorded without changing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from voxplain.engine.rules.call_recorder import layer_paths
from voxplain.engine.rules.calls import Call, OperationKind
from voxplain.engine.rules.decompositions import decomposition
from voxplain.engine.rules.mode import RuleMode
from voxplain.engine.rules.visibility import guard
from voxplain.engine.tensors import storage_key

Path = Callable[[], str]


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """The weights of one attention operation for one image.

    Attributes:
        path: Of the innermost module that was running.
        weights: ``(maps, queries, keys)`` in [0, 1], rows sum to 1; one map per head, or per
            window and head.
    """

    path: str
    weights: Tensor


class AttentionRecorder(RuleMode):
    """Records softmax outputs over keys that are then multiplied with values.

    Fused attention is computed a second time in single steps, to obtain its weights.

    Args:
        path: Returns the path of the layer that is running.

    Attributes:
        maps: The recorded weights, in order of use.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.maps: list[AttentionMap] = []
        self._path = path
        self._candidates: dict[int, Tensor] = {}

    def treat(self, call: Call, native: Callable[[], Any]) -> Any:
        """Runs the call and follows softmax outputs to the products that use them."""
        fused = call.kind is OperationKind.ATTENTION and decomposition(call)
        if fused:
            with self:
                fused()
            return native()
        result = native()
        if call.name == "softmax" and isinstance(result, Tensor):
            self._add_candidate(call, result)
        elif call.kind is OperationKind.BILINEAR:
            self._record_operand(call)
        elif call.kind in (OperationKind.DROPOUT, OperationKind.LINEAR) and isinstance(
            result, Tensor
        ):
            self._follow(call, result)
        return result

    def _add_candidate(self, call: Call, result: Tensor) -> None:
        axis = call.get("dim")
        if result.dim() >= 2 and axis is not None and axis % result.dim() == result.dim() - 1:
            self._candidates[storage_key(result)] = result

    def _follow(self, call: Call, result: Tensor) -> None:
        """Follows weights through dropout in evaluation mode and changes of type."""
        for operand in call.operands():
            weights = self._candidates.get(storage_key(operand))
            if weights is not None and weights.shape == operand.shape == result.shape:
                self._candidates[storage_key(result)] = result

    def _record_operand(self, call: Call) -> None:
        for operand in call.operands():
            weights = self._candidates.get(storage_key(operand))
            if weights is not None and weights.numel() == operand.numel():
                maps = weights.detach().reshape(-1, *weights.shape[-2:])
                self.maps.append(AttentionMap(self._path(), maps))
                self._candidates.clear()
                return


def attention_maps(
    forward: Callable[[Tensor], Tensor], network: nn.Module, image: Tensor
) -> list[AttentionMap]:
    """The attention weights of one forward, in order of use.

    Args:
        forward: Runs the network.
        network: Gives the layer paths.
        image: ``(1, C, *spatial)``.
    """
    with torch.inference_mode(False), torch.no_grad(), guard(network), layer_paths(network) as path:
        mode = AttentionRecorder(path)
        with mode:
            forward(image)
    return mode.maps
