"""Calls of torch functions, with their arguments by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.tensors import map_tensors, storage_key, tensors_in


class OperationKind(str, Enum):
    """Mathematical kind of a function, by which rules choose what to do with a call."""

    RECTIFIER = "rectifier"
    SQUASHING = "squashing"
    ELEMENTWISE = "elementwise"
    PRODUCT = "product"
    QUOTIENT = "quotient"
    BILINEAR = "bilinear"
    WEIGHTED = "weighted"
    SELECT = "select"
    ATTENTION = "attention"
    SOFTMAX = "softmax"
    NORM = "norm"
    MAXIMUM = "maximum"
    COMPOSITE = "composite"
    DROPOUT = "dropout"
    LINEAR = "linear"
    LINEAR_IN_FIRST = "linear in its first operand"
    RECURRENT = "recurrent"


@dataclass(frozen=True)
class Operation:
    """A torch function known to the rules.

    Attributes:
        name: Canonical name, as in reports and errors.
        kind: Mathematical kind.
        parameters: Argument names in positional order; ``*name`` takes all remaining arguments.
        pure: The out-of-place function, called with these names.
        inplace: Whether the function writes to its first operand.
    """

    name: str
    kind: OperationKind
    parameters: tuple[str, ...]
    pure: Callable[..., Any]
    inplace: bool = False


@dataclass(frozen=True)
class Call:
    """An operation with its arguments.

    Attributes:
        operation: The function.
        arguments: By name, without ``inplace`` and ``out``.
        inplace: Whether the result is written to the first operand.
        out: The tensor that the result is written to, if the caller passed one.
    """

    operation: Operation
    arguments: dict[str, Any] = field(hash=False)
    inplace: bool = False
    out: Tensor | None = None

    @property
    def name(self) -> str:
        """Canonical name."""
        return self.operation.name

    @property
    def kind(self) -> OperationKind:
        """Mathematical kind."""
        return self.operation.kind

    @property
    def input(self) -> Tensor:
        """The operand named ``input``."""
        first: Tensor = self.arguments["input"]
        return first

    def get(self, name: str, default: Any = None) -> Any:
        """An argument, or the default if it was not passed."""
        return self.arguments.get(name, default)

    def operands(self) -> Iterator[Tensor]:
        """All tensors among the arguments."""
        return tensors_in(self.arguments)

    def run(self) -> Any:
        """Result of the call, computed out of place."""
        return self.operation.pure(**self.arguments)

    def with_input(self, operand: Tensor) -> Call:
        """The same call with another operand ``input``, out of place."""
        return replace(self, arguments={**self.arguments, "input": operand}, inplace=False)

    def detached(self) -> Call:
        """The same call on detached tensors, out of place."""
        arguments = map_tensors(self.arguments, lambda tensor: tensor.detach())
        return replace(self, arguments=arguments, inplace=False, out=None)

    def snapshot(self) -> Call:
        """As ``detached``, with a copy of the tensor that the call will overwrite, if any."""
        written = self.out
        if written is None and self.inplace:
            written = next(self.operands())
        detached = self.detached()
        if written is None:
            return detached
        storage = storage_key(written)
        arguments = map_tensors(
            detached.arguments,
            lambda tensor: tensor.clone() if storage_key(tensor) == storage else tensor,
        )
        return replace(detached, arguments=arguments)

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the operands."""
        return tuple(tuple(operand.shape) for operand in self.operands())


_SYNONYMS = {
    "self": "input",
    "x": "input",
    "a": "input",
    "x1": "input",
    "x2": "other",
    "axis": "dim",
    "keepdims": "keepdim",
}


def bind_arguments(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """The call of a function, its positional arguments named.

    Args:
        operation: The function.
        args: As received by the mode.
        kwargs: As received by the mode; NumPy spellings (``axis``) are translated.
    """
    arguments = _positional(operation.parameters, args)
    for key, value in kwargs.items():
        name = key if key in operation.parameters else _SYNONYMS.get(key, key)
        arguments[name] = value
    inplace = bool(arguments.pop("inplace", False)) or operation.inplace
    out = arguments.pop("out", None)
    for irrelevant in ("_stacklevel", "cudnn_enabled", "cudnn_enable"):
        arguments.pop(irrelevant, None)
    return Call(operation, arguments, inplace, out)


def _positional(parameters: tuple[str, ...], args: tuple[Any, ...]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for position, name in enumerate(parameters):
        if name.startswith("*"):
            arguments[name[1:]] = _remaining(args[position:])
            return arguments
        if position < len(args):
            arguments[name] = args[position]
    return arguments


def _remaining(rest: tuple[Any, ...]) -> tuple[Any, ...]:
    """Remaining arguments, a single list of tensors unpacked; a list of sizes is one argument."""
    is_list = len(rest) == 1 and isinstance(rest[0], (tuple, list))
    of_tensors = is_list and next(tensors_in(rest), None) is not None
    return tuple(rest[0]) if of_tensors else rest


def value_and_derivative(call: Call, point: Tensor) -> tuple[Tensor, Tensor]:
    """Value and derivative of an elementwise function.

    Args:
        call: A call of the function, whose other arguments are used.
        point: Where to evaluate it, any shape.

    Returns:
        f(point) and f'(point), as autograd defines it at kinks.
    """
    with torch.enable_grad():
        leaf = point.detach().requires_grad_()
        value = call.with_input(leaf).run()
        (derivative,) = torch.autograd.grad(value, leaf, torch.ones_like(value))
    return value.detach(), derivative


def is_affine(call: Call) -> bool:
    """Whether a norm uses stored statistics, and so is an affine map of its input."""
    if call.name == "batch_norm":
        return not call.get("training", False)
    if call.name == "instance_norm":
        return not call.get("use_input_stats", True)
    return False
