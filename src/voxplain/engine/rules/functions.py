"""Which function object belongs to which operation, and how its arguments are named."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from voxplain.engine.rules import function_names as names
from voxplain.engine.rules.calls import Call, Operation, OperationKind, bind

_SPACES: tuple[Any, ...] = (
    F,
    torch,
    Tensor,
    torch._C._nn,
    torch.special,
    torch.linalg,
    torch.fft,
)


def describe(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Call | None:
    """The call of a known function, or None for one that is not in the table.

    Args:
        function: As received by a ``TorchFunctionMode``; matched by object, never by name.
        args: Positional arguments.
        kwargs: Keyword arguments.
    """
    operation = _TABLE.get(function)
    if operation is None:
        return None
    if operation.name in ("max", "min") and _of_two(args, kwargs):
        operation = _TABLE[torch.maximum if operation.name == "max" else torch.minimum]
    return bind(operation, args, kwargs)


def _of_two(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether ``max`` or ``min`` compares two tensors."""
    return "other" in kwargs or (len(args) > 1 and isinstance(args[1], Tensor))


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """A Python function of torch whose body runs instead of dispatching to the mode again.

    The copy shares code and closure with the original; only its own view of the names
    ``has_torch_function*`` differs, so nothing outside is changed.
    """
    code: Any = function
    checks = [name for name in code.__globals__ if name.startswith("has_torch_function")]
    scope = {**code.__globals__, **dict.fromkeys(checks, _never)}
    kind: Any = type(_never)
    copy = kind(code.__code__, scope, code.__name__, code.__defaults__, code.__closure__)
    copy.__kwdefaults__ = code.__kwdefaults__
    return copy  # type: ignore[no-any-return]


def _never(*_: Any) -> bool:
    return False


def _build() -> dict[Callable[..., Any], Operation]:
    table: dict[Callable[..., Any], Operation] = {}
    for family, name, others, functional, elsewhere in names.ROWS:
        _enter(table, family, name, others, functional, elsewhere or functional)
    for name in names.ELEMENTWISE.split():
        _enter(table, OperationKind.ELEMENTWISE, name, "", "input", "input")
    for listed, parameters in names.CONVOLUTIONS:
        for name in listed.split():
            _enter(table, OperationKind.WEIGHTED, name, "", parameters, parameters)
    for name in names.MAX_POOLS.split():
        _enter_pool(table, name)
    for listed, family, parameters in (
        (names.DROPOUT, OperationKind.DROPOUT, "input p training inplace"),
        (names.LINEAR, OperationKind.LINEAR, "*operands"),
        (names.LINEAR_IN_FIRST, OperationKind.LINEAR_IN_FIRST, "input *others"),
        (names.RECURRENT, OperationKind.RECURRENT, "*operands"),
    ):
        for name in listed.split():
            _enter(table, family, name, "", parameters, parameters)
    _enter_python_bodies(table)
    _enter_reversed(table)
    return table


def _enter(
    table: dict[Callable[..., Any], Operation],
    family: OperationKind,
    name: str,
    others: str,
    functional: str,
    elsewhere: str,
) -> None:
    """Finds a name in every namespace of torch, with its in-place twin."""
    found = list(_found([name, *others.split()]))
    if not found:  # a version of torch that does not have it yet
        return
    pure = _PURE.get(name, found[0][0])
    for function, space, inplace in found:
        parameters = functional if space is F else elsewhere
        row = Operation(name, family, tuple(parameters.split()), pure, inplace)
        table.setdefault(function, row)


def _found(spellings: list[str]) -> Iterator[tuple[Callable[..., Any], Any, bool]]:
    for name in spellings:
        dunder = name.startswith("__")
        for space in _SPACES:
            if callable(function := getattr(space, name, None)):
                writes = (dunder and name in _WRITING) or (name.endswith("_") and not dunder)
                yield function, space, writes
            if not dunder and callable(function := getattr(space, f"{name}_", None)):
                yield function, space, True


def _enter_pool(table: dict[Callable[..., Any], Operation], name: str) -> None:
    parameters = "input output_size return_indices"
    if not name.startswith("adaptive"):
        parameters = "input kernel_size stride padding dilation ceil_mode return_indices"
    for spelled, indices in ((name, False), (f"{name}_with_indices", True)):
        for function, _, _ in _found([spelled]):
            pure = partial(_pool, getattr(F, name), indices)
            row = Operation(name, OperationKind.MAXIMUM, tuple(parameters.split()), pure)
            table.setdefault(function, row)


def _pool(pool: Callable[..., Any], indices: bool, **arguments: Any) -> Any:
    return pool(**{**arguments, "return_indices": indices or arguments.get("return_indices")})


def _enter_python_bodies(table: dict[Callable[..., Any], Operation]) -> None:
    for name in names.PYTHON_BODIES.split():
        function = getattr(F, name, None)
        if function is None:
            continue
        parameters = tuple(inspect.signature(function).parameters)
        family = OperationKind.ATTENTION if "attention" in name else OperationKind.COMPOSITE
        table[function] = Operation(name, family, parameters, function)


def _enter_reversed(table: dict[Callable[..., Any], Operation]) -> None:
    """Operators with the tensor on the right, and properties that are views."""
    swapped = ("input", "other")
    for name in ("__rdiv__", "__rtruediv__"):
        if function := getattr(Tensor, name, None):
            table[function] = Operation("rdiv", OperationKind.QUOTIENT, swapped, _reversed_division)
    table[Tensor.__rpow__] = Operation("rpow", OperationKind.ELEMENTWISE, swapped, _reversed_power)
    table[Tensor.__rmatmul__] = Operation(
        "rmatmul", OperationKind.BILINEAR, swapped, _reversed_matmul
    )
    where = Operation("where", OperationKind.SELECT, ("input", "condition", "other"), torch.where)
    table[Tensor.where] = where
    for name in names.GETTERS.split():
        getter = getattr(Tensor, name).__get__
        table[getter] = Operation(name, OperationKind.LINEAR, ("*operands",), getter)


def _reversed_division(input: Tensor, other: Any) -> Any:
    return other / input


def _reversed_power(input: Tensor, other: Any) -> Any:
    return other**input


def _reversed_matmul(input: Tensor, other: Any) -> Any:
    return other @ input


def _einsum(equation: str, operands: tuple[Tensor, ...]) -> Tensor:
    return torch.einsum(equation, *operands)


def _set_item(input: Tensor, index: Any, value: Any) -> Tensor:
    changed = input.clone()
    changed[index] = value
    return changed


def _variance(
    input: Tensor,
    dim: Any = None,
    unbiased: Any = True,
    keepdim: Any = False,
    correction: Any = None,
) -> Tensor:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None else int(unbiased)
    return torch.var(input, dim, correction=correction, keepdim=keepdim)


_WRITING = (
    "__setitem__",
    "__iadd__",
    "__isub__",
    "__imul__",
    "__itruediv__",
    "__idiv__",
    "__ipow__",
)
_PURE: dict[str, Callable[..., Any]] = {
    "einsum": _einsum,
    "__setitem__": _set_item,
    "var": _variance,
}
_TABLE = _build()
