"""Exact outputs for many small changes of one image, and whether that is less work."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from voxplain.engine.acceleration.incremental.boxes import BoxSet
from voxplain.engine.acceleration.incremental.cache import ActivationCache, CachedActivation
from voxplain.engine.acceleration.incremental.tensor import IncrementalTensor
from voxplain.engine.acceleration.incremental.value import LARGEST_FRACTION, PartialValue
from voxplain.engine.taps import Changes, tapping
from voxplain.engine.tensors import tensors_in
from voxplain.errors import InputError, is_out_of_memory
from voxplain.models.model import Model

Box = tuple[slice, ...]

GAIN = 1.6
"""Least ratio of work at which incremental forwards are used. Classifiers with a higher estimate
run about twice as fast as estimated; U-Nets, in which a change spreads over the whole bottleneck,
reach estimates of up to 1.58 and hardly run faster."""

_PER_ELEMENT, _PER_CALL = 8, 3e5
"""Cost of reading or writing an element, and of calling an operator, in multiplications."""


class Incremental:
    """Exact outputs for copies of an image that differ from it in a box each.

    The activations of the unperturbed image are cached. Of every later forward only the affected
    part is computed: each operator on the cells that change, with the halo that they read. From
    the first operator on that mixes all positions (normalization by the statistics of the data,
    global pooling, attention), or whose affected boxes fill most of the grid, the forward goes on
    with full tensors.

    Args:
        model: Its parameters must not change during the life of this object.
        image: ``(C, *spatial)``.
    """

    def __init__(self, model: Model, image: Tensor) -> None:
        self.model = model
        self.image = model.admit(image.detach())
        self._cache = ActivationCache(model.network)
        self._base = CachedActivation(self.image[None].clone(), self.image.device)
        self._supported = True

    @property
    def nbytes(self) -> int:
        """Bytes of the cached activations."""
        return self._base.nbytes + self._cache.nbytes

    @property
    def supported(self) -> bool:
        """False once the network has used an unsupported operation; then forwards are plain."""
        return self._supported

    def outputs(self, inputs: Tensor, boxes: Sequence[Box]) -> Tensor:
        """The outputs for changed images.

        Args:
            inputs: ``(k, C, *spatial)``.
            boxes: Per image the box outside of which it equals the unperturbed one.

        Returns:
            ``(k, K, ...)``, equal to those of a plain forward up to rounding.

        Raises:
            InputError: If the images have another shape, or there is not one box for each.
        """
        shape = tuple(self.image.shape[1:])
        if inputs.shape[1:] != self.image.shape or len(boxes) != len(inputs):
            raise InputError(
                f"{len(boxes)} boxes for inputs of shape {tuple(inputs.shape)}; there must be one "
                f"for each input, of shape {tuple(self.image.shape)}"
            )
        spans = np.array([_ends(box, shape) for box in boxes], dtype=np.int64)
        common = BoxSet.around(spans[..., 0], spans[..., 1], shape)
        if common.fraction(shape) > LARGEST_FRACTION:
            with self._at_rest():
                return self.model(self.model.admit(inputs))
        patches = self.model.admit(torch.stack([inputs[index] for index in common.indices()]))
        value = PartialValue(self._base, len(patches), common, patches)
        return self._run(self.model, value, lambda: self.model.admit(inputs))

    def outputs_with_changes(self, changes: Changes, count: int) -> Tensor:
        """The outputs with changed activations at some layers; earlier layers are not recomputed.

        Args:
            changes: By tap, a function from the activations ``(count, ...)`` to the changed ones.
            count: Number of copies of the image.

        Returns:
            ``(count, K, ...)``.
        """

        def forward(images: Tensor) -> Tensor:
            with tapping(self.model.network, tuple(changes), changes):
                return self.model(images)

        value = PartialValue(self._base, count)
        return self._run(forward, value, lambda: self.image.expand(value.shape).clone())

    def _run(
        self,
        forward: Callable[[Tensor], Tensor],
        value: PartialValue,
        full_images: Callable[[], Tensor],
    ) -> Tensor:
        with self._at_rest():
            if self._supported:
                try:
                    output = forward(IncrementalTensor(value, self._cache, self._base))
                    if isinstance(output, IncrementalTensor):
                        return output.to_plain().clone()
                    return output
                except Exception as error:
                    # A network may use what only plain tensors offer; an error of its own is
                    # raised again by the plain forward below.
                    if is_out_of_memory(error):
                        raise
                    self._supported = False
            return forward(full_images())

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """Under ``no_grad``: inference mode would hide operators behind composite ones."""
        with self.model.at_rest(), torch.inference_mode(False), torch.no_grad():
            yield


def _ends(box: Box, shape: Sequence[int]) -> list[tuple[int, int]]:
    return [side.indices(cells)[:2] for side, cells in zip(box, shape, strict=True)]


@dataclass(frozen=True)
class WorkEstimate:
    """Work for one changed image, in multiplications or operations that take as long.

    Attributes:
        full: Of a plain forward.
        incremental: Of an incremental forward, once the unperturbed activations are cached.
        agrees: Whether both gave the same output.
    """

    full: float
    incremental: float
    agrees: bool

    @property
    def gain(self) -> float:
        """Ratio of the work of the plain forward to that of the incremental one."""
        return self.full / max(1.0, self.incremental)

    @property
    def pays(self) -> bool:
        """Whether incremental forwards should be used."""
        return self.agrees and self.gain >= GAIN


def estimate_work(incremental: Incremental, box: Box) -> WorkEstimate:
    """Counts the work for an image in which the content of a box is flipped and negated.

    Work is counted and not timed, so the result is the same on every machine and in every run. It
    costs about four forwards.

    Args:
        incremental: Of the network and the image.
        box: A typical one; if boxes lie everywhere, one in the middle.
    """
    model, index = incremental.model, (slice(None), slice(None), *box)
    inputs = incremental.image[None].clone()
    inputs[index] = inputs[index].flip(tuple(range(2, inputs.ndim)))
    incremental.outputs(inputs, [box])
    inputs[index] = -inputs[index]  # other content: what depends on it cannot come from the cache
    with WorkCounter() as partial_work:
        output = incremental.outputs(inputs, [box])
    with WorkCounter() as full_work, model.at_rest(), torch.inference_mode(False), torch.no_grad():
        expected = model(inputs)
    agrees = incremental.supported and _agree(output, expected)
    return WorkEstimate(full_work.total, partial_work.total, agrees)


def _agree(output: Tensor, expected: Tensor) -> bool:
    scale = float(expected.abs().max())
    return bool((output - expected).abs().max() <= 1e-3 * scale) if math.isfinite(scale) else False


class WorkCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the work of the operators on plain tensors.

    Attributes:
        total: In multiplications, or operations that take as long.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0.0

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Counts one operator; the operators that an incremental tensor runs count one by one."""
        operands = tensors_in((args, kwargs or {}))
        if any(isinstance(operand, IncrementalTensor) for operand in operands):
            with self:
                return IncrementalTensor.__torch_dispatch__(func, types, args, kwargs)
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.total += _cost(func, args, result)
        return result


def _cost(func: OpOverload, args: tuple[Any, ...], result: Any) -> float:
    """Multiplications of an operator, plus the cost of reading and writing its tensors."""
    elements = sum(tensor.numel() for tensor in tensors_in((args, result)))
    name = func._schema.name
    products = 0
    if "convolution" in name:
        source, weight = args[0], args[1]
        transposed = bool(args[6]) if len(args) > 6 else False
        products = (source if transposed else result).numel() * weight[0].numel()
    elif name in _MATRIX_PRODUCTS:
        products = result.numel() * args[-1].shape[-2]
    return products + _PER_ELEMENT * elements + _PER_CALL


_MATRIX_PRODUCTS = frozenset({"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"})
