"""A tensor subclass whose activations are known up to a changed box per image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch._ops import OpOverload

from voxplain.engine.acceleration.incremental import neighborhoods, pointwise
from voxplain.engine.acceleration.incremental.cache import ActivationCache, CachedActivation
from voxplain.engine.acceleration.incremental.value import (
    BoxRule,
    IncrementalStep,
    PartialValue,
    bind_arguments,
    keeps_images_apart,
)
from voxplain.engine.tensors import map_tensors, tensors_in


class UnsupportedOperationError(Exception):
    """The network uses an operation that only a plain forward computes correctly."""


class IncrementalTensor(Tensor):
    """A tensor that stands for a :class:`PartialValue` in the forward of a network.

    Every operator on it is dispatched here. Operators with a box rule are computed on boxes. All
    others are computed on the full tensors and return plain ones, with which the network goes on.

    Attributes:
        value: The activations; None for a plain tensor, and for outputs that must not be read.
        cache: The unperturbed results.
    """

    value: PartialValue | None
    cache: ActivationCache

    @staticmethod
    def __new__(
        cls, value: PartialValue | None, cache: ActivationCache, like: CachedActivation
    ) -> IncrementalTensor:
        """A tensor without storage of its own, of the shape of the value or of ``like``."""
        shape = value.shape if value else like.shape
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)

    def __init__(
        self, value: PartialValue | None, cache: ActivationCache, like: CachedActivation
    ) -> None:
        self.value, self.cache = value, cache
        self._full: Tensor | None = None
        self._has_views = False

    def __repr__(self) -> str:  # type: ignore[override]
        return f"IncrementalTensor({tuple(self.shape)})"

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Computes normalizations in one step, as their operators count the images."""
        with torch._C.DisableTorchFunctionSubclass():
            if func in _IN_ONE_STEP:
                return _compute_in_one_step(func, args, kwargs or {})
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: OpOverload,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Computes one operator: in place, on boxes, or on full tensors."""
        keywords = kwargs or {}
        targets = _write_targets(func, args, keywords)
        if targets:
            return _compute_in_place(func, args, keywords, targets)
        return _compute(func, args, keywords)

    def to_plain(self) -> Tensor:
        """The full activations as an ordinary tensor; read-only."""
        if self._full is None:
            if self.value is None:
                raise UnsupportedOperationError("indices of maxima were read")
            self._full = self.value.full()
        return self._full

    def make_plain(self) -> Tensor:
        """Stores the full activations from now on, so that views of them can be taken."""
        if self.value is not None:
            if self._has_views:
                raise UnsupportedOperationError("a view of a view of an incremental tensor")
            full = self.to_plain()
            self._full = full.clone() if self.value.unchanged else full
            self.value = None
        return self.to_plain()

    def assign(self, result: Tensor) -> None:
        """Replaces the content by the result of an operator that writes in place."""
        if isinstance(result, IncrementalTensor) and result.value is not None:
            self.value, self._full = result.value, None
        else:
            self.value, self._full = None, result.clone()

    @property
    def is_plain(self) -> bool:
        """Whether only full activations are stored."""
        return self.value is None and self._full is not None


def _compute(func: OpOverload, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Computes an operator that writes to none of its arguments."""
    if func.is_view and (slices := _split_into_slices(func, args, keywords)) is not None:
        return slices
    result = _compute_on_boxes(func, args, keywords)
    if result is None:
        convert = IncrementalTensor.make_plain if func.is_view else IncrementalTensor.to_plain
        return _run_plain(func, args, keywords, convert)
    if func.is_view:
        for tensor in _incremental_tensors((args, result)):
            tensor._has_views = True
    return _with_unreadable_outputs(func, result)


def _compute_on_boxes(
    func: OpOverload, args: tuple[Any, ...], keywords: dict[str, Any]
) -> IncrementalTensor | None:
    """The result on boxes; None without a box rule, or if the boxes cover nearly everything."""
    rule = _box_rule(func)
    inputs = _incremental_tensors((args, keywords))
    if rule is None or func._schema.is_mutable or any(tensor.value is None for tensor in inputs):
        return None
    cache, count = inputs[0].cache, len(inputs[0])
    base_args, base_keywords = _map((args, keywords), lambda value: value.base)
    output = cache.find(func, base_args, base_keywords, count)
    if output is None:
        return None
    if _all_unchanged(inputs):
        if not keeps_images_apart(func, args, keywords, inputs[0].ndim):
            return None
        return IncrementalTensor(PartialValue(output, count), cache, output)
    if output.spatial == () or len(output.shape) != inputs[0].ndim:
        return None
    arguments = bind_arguments(func, *_map((args, keywords), lambda value: value))
    changed = rule(IncrementalStep(func, arguments, output))
    if changed is None:
        return None
    return IncrementalTensor(PartialValue(output, count, *changed), cache, output)


def _box_rule(func: OpOverload) -> BoxRule | None:
    if torch.Tag.nondeterministic_seeded in func.tags:
        return None
    name = func._schema.name.removeprefix("aten::")
    rule = RULES.get(name)
    if rule is None and torch.Tag.pointwise in func.tags and not name.endswith("_like"):
        return pointwise.pointwise
    return rule


def _split_into_slices(
    func: OpOverload, args: tuple[Any, ...], keywords: dict[str, Any]
) -> list[Any] | None:
    """``split`` as several slices; None for other views."""
    if func not in (torch.ops.aten.split.Tensor, torch.ops.aten.split_with_sizes.default):
        return None
    arguments = bind_arguments(func, args, keywords)
    tensor, axis = arguments["self"], arguments["dim"]
    cells = tensor.shape[axis]
    sizes = arguments.get("split_sizes") or [arguments["split_size"]] * (
        -(-cells // max(1, arguments["split_size"]))
    )
    stops = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    starts = [0, *stops[:-1]]
    slicing = torch.ops.aten.slice.Tensor
    return [
        _compute(slicing, (tensor, axis, start, min(stop, cells)), {})
        for start, stop in zip(starts, stops, strict=True)
    ]


def _write_targets(
    func: OpOverload, args: tuple[Any, ...], keywords: dict[str, Any]
) -> list[IncrementalTensor]:
    """The incremental tensors that an operator writes to."""
    targets = []
    for position, parameter in enumerate(func._schema.arguments):
        if parameter.alias_info is not None and parameter.alias_info.is_write:
            by_name = parameter.kwarg_only
            argument = keywords.get(parameter.name) if by_name else args[position : position + 1]
            targets += _incremental_tensors(argument)
    return targets


def _compute_in_place(
    func: OpOverload,
    args: tuple[Any, ...],
    keywords: dict[str, Any],
    targets: Sequence[IncrementalTensor],
) -> Any:
    """Computes an operator that writes to its arguments: out of place, then assigned."""
    target, pure = targets[0], _out_of_place(func)
    if len(targets) == 1 and args and target is args[0] and not target.is_plain and pure:
        if target._has_views:
            raise UnsupportedOperationError("a view of an incremental tensor is written to")
        result = _compute(pure, args, keywords)
        if result.shape != target.shape:
            raise UnsupportedOperationError(
                "an incremental tensor is written to with another shape"
            )
        if result.dtype is not target.dtype:
            result = _compute(torch.ops.aten._to_copy.default, (result,), {"dtype": target.dtype})
        target.assign(result)
        return target
    owners = {id(tensor.make_plain()): tensor for tensor in targets}
    result = _run_plain(func, args, keywords)
    return map_tensors(result, lambda tensor: owners.get(id(tensor), tensor))


def _out_of_place(func: OpOverload) -> OpOverload | None:
    name, overload = func._schema.name.removeprefix("aten::"), func._overloadname
    packet = getattr(torch.ops.aten, name[:-1], None) if name.endswith("_") else None
    return getattr(packet, overload, None) if packet is not None else None


def _with_unreadable_outputs(func: OpOverload, result: IncrementalTensor) -> Any:
    """The result with its further outputs (indices, statistics), which raise when they are read."""
    count = len(func._schema.returns)
    if count == 1 or result.value is None:
        return result
    unreadable = [
        IncrementalTensor(None, result.cache, result.value.base) for _ in range(count - 1)
    ]
    return (result, *unreadable)


def _compute_in_one_step(
    func: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]
) -> Any:
    """A function of torch: taken from the cache for unchanged inputs, else on full tensors."""
    inputs = _incremental_tensors((args, keywords))
    if _all_unchanged(inputs):
        cache, count = inputs[0].cache, len(inputs[0])
        base_args, base_keywords = _map((args, keywords), lambda value: value.base)
        output = cache.find(func, base_args, base_keywords, count)
        if output is not None:
            return IncrementalTensor(PartialValue(output, count), cache, output)
    return _run_plain(func, args, keywords)


def _incremental_tensors(tree: Any) -> list[IncrementalTensor]:
    return [tensor for tensor in tensors_in(tree) if isinstance(tensor, IncrementalTensor)]


def _all_unchanged(tensors: Sequence[IncrementalTensor]) -> bool:
    return all(tensor.value is not None and tensor.value.unchanged for tensor in tensors)


def _run_plain(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    keywords: dict[str, Any],
    convert: Callable[[IncrementalTensor], Tensor] = IncrementalTensor.to_plain,
) -> Any:
    def converted(tensor: Tensor) -> Tensor:
        return convert(tensor) if isinstance(tensor, IncrementalTensor) else tensor

    args, keywords = map_tensors((args, keywords), converted)
    return func(*args, **keywords)


def _map(tree: Any, function: Callable[[PartialValue], Any]) -> Any:
    """The same arguments with a function of the value in the place of each incremental tensor."""

    def replaced(tensor: Tensor) -> Any:
        if not isinstance(tensor, IncrementalTensor):
            return tensor
        return function(tensor.value) if tensor.value is not None else tensor.to_plain()

    return map_tensors(tree, replaced)


_IN_ONE_STEP = frozenset({functional.instance_norm, functional.group_norm, functional.layer_norm})
RULES: dict[str, BoxRule] = {
    **neighborhoods.RULES,
    **pointwise.RULES,
    "slice": pointwise.slicing(neighborhoods.RULES["slice"]),
}
"""The box rule of each operator, by its name without namespace and overload."""
