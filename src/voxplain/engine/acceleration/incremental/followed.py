"""A tensor that stands for a batch of activations that are known up to a box per image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch._ops import OpOverload

from voxplain.engine.acceleration.incremental import neighborhoods, pointwise
from voxplain.engine.acceleration.incremental.cache import ActivationCache, CachedActivation
from voxplain.engine.acceleration.incremental.step import IncrementalStep, Rule, bound
from voxplain.engine.acceleration.incremental.value import PartialValue
from voxplain.engine.tensors import map_tensors, tensors_in


class UnfollowableError(Exception):
    """The network does something with its activations that only a plain forward does right."""


class IncrementalTensor(Tensor):
    """Carries a :class:`PartialValue` through a network; every operator on it comes here.

    Operators with a rule are computed on boxes. All others get full tensors and give plain ones,
    with which the network goes on as ever.

    Attributes:
        value: What is known; None for results that nobody should read.
        memo: The unperturbed results.
    """

    value: PartialValue | None
    memo: ActivationCache

    @staticmethod
    def __new__(
        cls, value: PartialValue | None, memo: ActivationCache, like: CachedActivation
    ) -> IncrementalTensor:
        """A tensor without storage of the shape of ``like`` for as many images as there are."""
        shape = value.shape if value else like.shape
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)

    def __init__(
        self, value: PartialValue | None, memo: ActivationCache, like: CachedActivation
    ) -> None:
        self.value, self.memo = value, memo
        self._full: Tensor | None = None
        self._aliased = False

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Followed({tuple(self.shape)})"

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Normalizations whole, as their parts count the images; all else goes to torch."""
        with torch._C.DisableTorchFunctionSubclass():
            if func in _WHOLE:
                return _whole(func, args, kwargs or {})
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: OpOverload,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """One operator: in place, on boxes, or on everything."""
        named = kwargs or {}
        written = _written(func, args, named)
        if written:
            return _write(func, args, named, written)
        return _compute(func, args, named)

    def plain(self) -> Tensor:
        """All of it as an ordinary tensor, not to be written to."""
        if self._full is None:
            if self.value is None:
                raise UnfollowableError("indices of maxima were read")
            self._full = self.value.whole()
        return self._full

    def settle(self) -> Tensor:
        """An ordinary tensor that holds the content from now on, of which there may be views."""
        if self.value is not None:
            if self._aliased:
                raise UnfollowableError("a view of a view of a followed tensor")
            whole = self.plain()
            self._full = whole.clone() if self.value.clean else whole
            self.value = None
        return self.plain()

    def become(self, other: Tensor) -> None:
        """Takes over what an operator that writes in place has computed."""
        if isinstance(other, IncrementalTensor) and other.value is not None:
            self.value, self._full = other.value, None
        else:
            self.value, self._full = None, other.clone()

    @property
    def settled(self) -> bool:
        """Whether this is just an ordinary tensor in disguise."""
        return self.value is None and self._full is not None


def _compute(func: OpOverload, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """An operator that writes to none of its arguments."""
    if func.is_view and (pieces := _pieces(func, args, named)) is not None:
        return pieces
    result = _on_boxes(func, args, named)
    if result is None:
        take = IncrementalTensor.settle if func.is_view else IncrementalTensor.plain
        return func(*_plain(args, take), **_plain(named, take))
    if func.is_view:
        for tensor in (*tensors_in(args), result):
            if isinstance(tensor, IncrementalTensor):
                tensor._aliased = True
    return _with_companions(func, result)


def _on_boxes(
    func: OpOverload, args: tuple[Any, ...], named: dict[str, Any]
) -> IncrementalTensor | None:
    """The result where there is a rule for it and what differs is worth being cut out."""
    rule = _rule(func)
    followed = [one for one in tensors_in((args, named)) if isinstance(one, IncrementalTensor)]
    if rule is None or func._schema.is_mutable or any(one.value is None for one in followed):
        return None
    memo, count = followed[0].memo, len(followed[0])
    bases, options = _map((args, named), lambda value: value.base)
    output = memo.find(func, bases, options, count)
    if output is None:
        return None
    if all(one.value is not None and one.value.clean for one in followed):
        alike = _clean(func, args, named, followed[0].ndim)
        return IncrementalTensor(PartialValue(output, count), memo, output) if alike else None
    if output.spatial == () or len(output.shape) != followed[0].ndim:
        return None
    arguments = bound(func, *_map((args, named), lambda value: value))
    changed = rule(IncrementalStep(func, arguments, output))
    if changed is None:
        return None
    return IncrementalTensor(PartialValue(output, count, *changed), memo, output)


def _rule(func: OpOverload) -> Rule | None:
    if torch.Tag.nondeterministic_seeded in func.tags:
        return None
    name = func._schema.name.removeprefix("aten::")
    rule = RULES.get(name)
    if rule is None and torch.Tag.pointwise in func.tags and not name.endswith("_like"):
        return pointwise.pointwise
    return rule


def _clean(func: OpOverload, args: tuple[Any, ...], named: dict[str, Any], ndim: int) -> bool:
    """Whether a call treats the images of a batch one by one, judged by its arguments."""
    arguments = bound(func, args, named)
    if arguments.get("training") or (arguments.get("repeats") or [1])[0] != 1:
        return False
    for name in ("dim", "dims"):
        if name in arguments:
            axes = arguments[name]
            axes = [axes] if isinstance(axes, int) else list(axes or [])
            return bool(axes) and all(axis % ndim for axis in axes)
    return func._schema.name not in _REDUCTIONS


def _pieces(func: OpOverload, args: tuple[Any, ...], named: dict[str, Any]) -> list[Any] | None:
    """``split`` as several slices; None for other views."""
    if func not in (torch.ops.aten.split.Tensor, torch.ops.aten.split_with_sizes.default):
        return None
    arguments = bound(func, args, named)
    tensor, axis = arguments["self"], arguments["dim"]
    cells = tensor.shape[axis]
    sizes = arguments.get("split_sizes") or [arguments["split_size"]] * (
        -(-cells // max(1, arguments["split_size"]))
    )
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    starts = [0, *ends[:-1]]
    slicing = torch.ops.aten.slice.Tensor
    return [
        _compute(slicing, (tensor, axis, low, min(high, cells)), {})
        for low, high in zip(starts, ends, strict=True)
    ]


def _written(
    func: OpOverload, args: tuple[Any, ...], named: dict[str, Any]
) -> list[IncrementalTensor]:
    """The followed tensors that an operator writes to."""
    found = []
    for position, one in enumerate(func._schema.arguments):
        if one.alias_info is not None and one.alias_info.is_write:
            given = named.get(one.name) if one.kwarg_only else args[position : position + 1]
            found += [
                tensor for tensor in tensors_in(given) if isinstance(tensor, IncrementalTensor)
            ]
    return found


def _write(
    func: OpOverload,
    args: tuple[Any, ...],
    named: dict[str, Any],
    written: Sequence[IncrementalTensor],
) -> Any:
    """An operator that writes to its arguments: out of place, then taken over."""
    target, twin = written[0], _out_of_place(func)
    if len(written) == 1 and args and target is args[0] and not target.settled and twin:
        if target._aliased:
            raise UnfollowableError("a view of a followed tensor is written to")
        result = _compute(twin, args, named)
        if result.shape != target.shape:
            raise UnfollowableError("a followed tensor is written to with another shape")
        if result.dtype is not target.dtype:
            result = _compute(torch.ops.aten._to_copy.default, (result,), {"dtype": target.dtype})
        target.become(result)
        return target
    owners = {id(one.settle()): one for one in written}
    result = func(*_plain(args, IncrementalTensor.plain), **_plain(named, IncrementalTensor.plain))
    return map_tensors(result, lambda tensor: owners.get(id(tensor), tensor))


def _out_of_place(func: OpOverload) -> OpOverload | None:
    name, overload = func._schema.name.removeprefix("aten::"), func._overloadname
    packet = getattr(torch.ops.aten, name[:-1], None) if name.endswith("_") else None
    return getattr(packet, overload, None) if packet is not None else None


def _with_companions(func: OpOverload, result: IncrementalTensor) -> Any:
    """What else an operator returns (indices, statistics), not to be read."""
    count = len(func._schema.returns)
    if count == 1 or result.value is None:
        return result
    nobody = [IncrementalTensor(None, result.memo, result.value.base) for _ in range(count - 1)]
    return (result, *nobody)


def _whole(func: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """A function of torch as one step: known for clean tensors, else on everything."""
    followed = [one for one in tensors_in((args, named)) if isinstance(one, IncrementalTensor)]
    values = [one.value for one in followed]
    if all(value is not None and value.clean for value in values):
        memo, count = followed[0].memo, len(followed[0])
        bases, options = _map((args, named), lambda value: value.base)
        output = memo.find(func, bases, options, count)
        if output is not None:
            return IncrementalTensor(PartialValue(output, count), memo, output)
    return func(*_plain(args, IncrementalTensor.plain), **_plain(named, IncrementalTensor.plain))


def _plain(tree: Any, take: Callable[[IncrementalTensor], Tensor]) -> Any:
    return map_tensors(tree, lambda one: take(one) if isinstance(one, IncrementalTensor) else one)


def _map(tree: Any, function: Callable[[PartialValue], Any]) -> Any:
    """The same arguments with what is known in the places of followed tensors."""

    def known(tensor: Tensor) -> Any:
        if not isinstance(tensor, IncrementalTensor):
            return tensor
        return function(tensor.value) if tensor.value is not None else tensor.plain()

    return map_tensors(tree, known)


_WHOLE = frozenset({functional.instance_norm, functional.group_norm, functional.layer_norm})
_REDUCTIONS = frozenset({"aten::sum", "aten::mean", "aten::amax", "aten::amin"})
RULES: dict[str, Rule] = {
    **neighborhoods.RULES,
    **pointwise.RULES,
    "slice": pointwise.slicing(neighborhoods.RULES["slice"]),
}
"""The rule of each operator, by its name without namespace and overload."""
