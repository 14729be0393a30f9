"""The table of torch's function objects: which operation each is, and its argument names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from voxplain.engine.rules import function_names as names
from voxplain.engine.rules.calls import Call, Operation, OperationKind, bind_arguments

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
        function: As received by a ``TorchFunctionMode``; looked up by identity, not by name.
        args: Positional arguments.
        kwargs: Keyword arguments.
    """
    operation = _TABLE.get(function)
    if operation is None:
        return None
    if operation.name in ("max", "min") and _of_two(args, kwargs):
        operation = _TABLE[torch.maximum if operation.name == "max" else torch.minimum]
    return bind_arguments(operation, args, kwargs)


def _of_two(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether ``max`` or ``min`` compares two tensors."""
    return "other" in kwargs or (len(args) > 1 and isinstance(args[1], Tensor))


def without_dispatch(function: Callable[..., Any]) -> Callable[..., Any]:
    """A copy of a Python function of torch that runs its body instead of dispatching to the mode.

    The copy shares code and closure with the original. Only in its globals ``has_torch_function*``
    return False, so nothing outside is changed.
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
    for kind, name, others, functional, elsewhere in names.ROWS:
        _add(table, kind, name, others, functional, elsewhere or functional)
    for name in names.ELEMENTWISE.split():
        _add(table, OperationKind.ELEMENTWISE, name, "", "input", "input")
    for convolutions, parameters in names.CONVOLUTIONS:
        for name in convolutions.split():
            _add(table, OperationKind.WEIGHTED, name, "", parameters, parameters)
    for name in names.MAX_POOLS.split():
        _add_pool(table, name)
    for functions, kind, parameters in (
        (names.DROPOUT, OperationKind.DROPOUT, "input p training inplace"),
        (names.LINEAR, OperationKind.LINEAR, "*operands"),
        (names.LINEAR_IN_FIRST, OperationKind.LINEAR_IN_FIRST, "input *others"),
        (names.RECURRENT, OperationKind.RECURRENT, "*operands"),
    ):
        for name in functions.split():
            _add(table, kind, name, "", parameters, parameters)
    _add_python_bodies(table)
    _add_reversed(table)
    return table


def _add(
    table: dict[Callable[..., Any], Operation],
    kind: OperationKind,
    name: str,
    others: str,
    functional: str,
    elsewhere: str,
) -> None:
    """Adds a function under all its names in every namespace of torch, in-place forms included."""
    functions = list(_find([name, *others.split()]))
    if not functions:  # a version of torch that does not have it yet
        return
    pure = _PURE.get(name, functions[0][0])
    for function, space, inplace in functions:
        parameters = functional if space is F else elsewhere
        operation = Operation(name, kind, tuple(parameters.split()), pure, inplace)
        table.setdefault(function, operation)


def _find(synonyms: list[str]) -> Iterator[tuple[Callable[..., Any], Any, bool]]:
    """Function objects, each with its namespace and whether it writes in place."""
    for name in synonyms:
        dunder = name.startswith("__")
        for space in _SPACES:
            if callable(function := getattr(space, name, None)):
                writes = (dunder and name in _WRITING) or (name.endswith("_") and not dunder)
                yield function, space, writes
            if not dunder and callable(function := getattr(space, f"{name}_", None)):
                yield function, space, True


def _add_pool(table: dict[Callable[..., Any], Operation], name: str) -> None:
    parameters = "input output_size return_indices"
    if not name.startswith("adaptive"):
        parameters = "input kernel_size stride padding dilation ceil_mode return_indices"
    for full_name, indices in ((name, False), (f"{name}_with_indices", True)):
        for function, _, _ in _find([full_name]):
            pure = partial(_pool, getattr(F, name), indices)
            operation = Operation(name, OperationKind.MAXIMUM, tuple(parameters.split()), pure)
            table.setdefault(function, operation)


def _pool(pool: Callable[..., Any], indices: bool, **arguments: Any) -> Any:
    return pool(**{**arguments, "return_indices": indices or arguments.get("return_indices")})


def _add_python_bodies(table: dict[Callable[..., Any], Operation]) -> None:
    for name in names.PYTHON_BODIES.split():
        function = getattr(F, name, None)
        if function is None:
            continue
        parameters = tuple(inspect.signature(function).parameters)
        kind = OperationKind.ATTENTION if "attention" in name else OperationKind.COMPOSITE
        table[function] = Operation(name, kind, parameters, function)


def _add_reversed(table: dict[Callable[..., Any], Operation]) -> None:
    """Adds operators with the tensor on the right, and properties that are views."""
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


def _reversed_division(**operands: Any) -> Any:
    return operands["other"] / operands["input"]


def _reversed_power(**operands: Any) -> Any:
    return operands["other"] ** operands["input"]


def _reversed_matmul(**operands: Any) -> Any:
    return operands["other"] @ operands["input"]


def _einsum(equation: str, operands: tuple[Tensor, ...]) -> Tensor:
    return torch.einsum(equation, *operands)


def _set_item(index: Any, value: Any, **operand: Tensor) -> Tensor:
    changed = operand["input"].clone()
    changed[index] = value
    return changed


def _variance(
    dim: Any = None,
    unbiased: Any = True,
    keepdim: Any = False,
    correction: Any = None,
    **operand: Tensor,
) -> Tensor:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None else int(unbiased)
    return torch.var(operand["input"], dim, correction=correction, keepdim=keepdim)


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


_SHAPE_ONLY = (
    *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"),
    *("new_zeros", "new_ones", "new_empty", "new_full", "new_tensor"),
)


def is_shape_only(func: Callable[..., Any]) -> bool:
    """Whether a function reads only the shape and type of its operand."""
    return getattr(func, "__name__", "") in _SHAPE_ONLY
