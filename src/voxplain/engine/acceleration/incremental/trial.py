"""Whether boxes of an image are better computed incrementally: work is counted, not timed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from voxplain.engine.acceleration.incremental.followed import IncrementalTensor
from voxplain.engine.acceleration.incremental.network import Box, Incremental
from voxplain.engine.tensors import tensors_in
from voxplain.models.model import Model

GAIN = 1.6
"""From this ratio of work on a cone is followed. Classifiers, which count more, gain twice what is
counted; U-Nets, whose cones fill the bottleneck, count up to 1.58 and gain little by the clock."""

_PER_CELL, _PER_CALL = 8, 3e5
"""What moving a number, and calling an operator, take, in multiplications of a convolution."""


@dataclass(frozen=True)
class WorkEstimate:
    """Multiplications, or what takes as long, for one changed image.

    Attributes:
        full: By a plain forward.
        incremental: By following the cone, once the unperturbed activations are kept.
        agrees: Whether both gave the same output.
    """

    full: float
    incremental: float
    agrees: bool

    @property
    def gain(self) -> float:
        """How many times more the plain forward works."""
        return self.full / max(1.0, self.incremental)

    @property
    def pays(self) -> bool:
        """Whether cones should be followed."""
        return self.agrees and self.gain >= GAIN


def worthwhile(model: Model, image: Tensor, box: Box) -> bool:
    """Whether the cones of such boxes are much smaller than the network, decided by counting.

    The answer is the same on every machine and in every run. It costs about four forwards.

    Args:
        model: The network.
        image: ``(C, *spatial)``.
        box: A typical one; if boxes lie everywhere, one in the middle.
    """
    return prepared(model, image, box) is not None


def prepared(model: Model, image: Tensor, box: Box) -> Incremental | None:
    """Incremental forwards of an image where they are :func:`worthwhile`, else None.

    Args:
        model: The network.
        image: ``(C, *spatial)``.
        box: A typical one; if boxes lie everywhere, one in the middle.
    """
    incremental = Incremental(model, image)
    return incremental if work(incremental, box).pays else None


def work(incremental: Incremental, box: Box) -> WorkEstimate:
    """Counts the work for an image with the content of a box turned around.

    Args:
        incremental: Of the network and the image.
        box: Where it changes.
    """
    model, place = incremental.model, (slice(None), slice(None), *box)
    inputs = incremental.image[None].clone()
    inputs[place] = inputs[place].flip(tuple(range(2, inputs.ndim)))
    incremental.outputs(inputs, [box])
    inputs[place] = -inputs[place]  # so that what depends on the content is not taken as kept
    with Counting() as cone:
        followed = incremental.outputs(inputs, [box])
    with Counting() as everything, model.at_rest(), torch.inference_mode(False), torch.no_grad():
        plain = model(inputs)
    agrees = incremental.followable and _agree(followed, plain)
    return WorkEstimate(everything.done, cone.done, agrees)


def _agree(one: Tensor, two: Tensor) -> bool:
    scale = float(two.abs().max())
    return bool((one - two).abs().max() <= 1e-3 * scale) if math.isfinite(scale) else False


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the work of the operators on plain tensors.

    Attributes:
        done: Multiplications, or what takes as long.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done = 0.0

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Lets followed tensors do their parts under the same count."""
        if any(isinstance(one, IncrementalTensor) for one in tensors_in((args, kwargs or {}))):
            with self:
                return IncrementalTensor.__torch_dispatch__(func, types, args, kwargs)
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.done += _cost(func, args, result)
        return result


def _cost(func: OpOverload, args: tuple[Any, ...], result: Any) -> float:
    """Multiplications of an operator, or what moving its numbers takes."""
    numbers = sum(tensor.numel() for tensor in tensors_in((args, result)))
    name = func._schema.name
    products = 0
    if "convolution" in name:
        source, weight = args[0], args[1]
        transposed = bool(args[6]) if len(args) > 6 else False
        products = (source if transposed else result).numel() * weight[0].numel()
    elif name in _PRODUCTS:
        products = result.numel() * args[-1].shape[-2]
    return products + _PER_CELL * numbers + _PER_CALL


_PRODUCTS = frozenset({"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"})
