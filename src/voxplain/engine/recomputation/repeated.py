"""Whether stages give the same again: each is computed twice, the second time in reverse order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.recomputation.stages import Forward, Stage, staged
from voxplain.engine.tensors import tensors_in, version
from voxplain.models.model import Model
from voxplain.models.rest import observing, random_state

_SAMPLES = 4096
"""Values of an output that are compared one by one."""
_EQUAL = 1e-5
"""Largest difference, relative to the largest value, that is rounding."""


def repeatable(
    model: Model, example: Tensor, stages: Sequence[Stage], devices: Sequence[int] | None
) -> tuple[Stage, ...]:
    """The stages whose inputs stay as they are, and that give the same when they run again.

    They run again as a backward pass runs them: after the forward, the last one first.

    Args:
        model: The network; left as it was, like its buffers and all random generators.
        example: ``(1, C, *spatial)``, what one call sees.
        stages: None of them lies in another one.
        devices: Indices of the CUDA devices on which random numbers may be drawn; None for a
            network that draws none.
    """
    calls: list[_StageCall] = []

    def around(stage: Stage, forward: Forward) -> Forward:
        def run(*args: Any, **kwargs: Any) -> Any:
            begin = None if devices is None else random_state(devices)
            versions = _versions((args, kwargs))
            output = forward(*args, **kwargs)
            calls.append(_StageCall(stage, forward, args, kwargs, versions, _digest(output), begin))
            return output

        return run

    with torch.inference_mode(False), observing(model.network), model.precise():
        with staged(model.network, stages, around):
            model(example)
        same = {call.stage for call in reversed(calls) if call.is_same_again()}
    return tuple(stage for stage in stages if stage in same)


@dataclass(frozen=True, eq=False)
class _StageCall:
    """The call of a stage.

    Attributes:
        stage: The stage.
        forward: What it computes.
        args: What it was given.
        kwargs: The same by name.
        versions: How often each tensor of these had been written to.
        digest: Of what it gave.
        begin: Puts the random generators as they were; None for a network that draws no numbers.
    """

    stage: Stage
    forward: Forward
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    versions: list[int]
    digest: list[Tensor]
    begin: Callable[[], None] | None

    def is_same_again(self) -> bool:
        """Whether it gives the same again, of the same."""
        if self._is_written():
            return False
        if self.begin is not None:
            self.begin()
        try:
            again = _digest(self.forward(*self.args, **self.kwargs))
        except Exception:  # of whatever kind: the stage then keeps what it saves
            return False
        return len(again) == len(self.digest) and all(map(_equal, again, self.digest))

    def _is_written(self) -> bool:
        return self.versions != _versions((self.args, self.kwargs))


def _versions(arguments: Any) -> list[int]:
    return [version(tensor) for tensor in tensors_in(arguments)]


def _digest(output: Any) -> list[Tensor]:
    """The sum of each tensor, and values all over it, in float64."""
    digests = []
    for tensor in tensors_in(output):
        values = tensor.detach().reshape(-1)
        some = values[:: max(1, len(values) // _SAMPLES)].double()
        digests.append(torch.cat([values.sum(dtype=torch.float64)[None], some]))
    return digests


def _equal(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    largest = float(second[1:].abs().nan_to_num(posinf=0).max()) if len(second) > 1 else 0.0
    return torch.allclose(first, second, rtol=_EQUAL, atol=_EQUAL * largest, equal_nan=True)
