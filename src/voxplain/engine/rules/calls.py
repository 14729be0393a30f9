"""One call of a torch function, with its arguments by name whatever way they were written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.tensors import map_tensors, storage_key, tensors_in


class OperationKind(str, Enum):
    """What kind of mathematics a function is; rules are chosen by it."""

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
    """A function of the table under its canonical name.

    Attributes:
        name: How reports and errors name it.
        family: Which rules apply.
        parameters: Argument names in positional order; ``*name`` takes all that follow.
        pure: The out-of-place function, called with these names.
    """

    name: str
    family: OperationKind
    parameters: tuple[str, ...]
    pure: Callable[..., Any]
    inplace: bool = False


@dataclass(frozen=True)
class Call:
    """An operation with its arguments.

    Attributes:
        operation: The row of the table.
        arguments: By name, without ``inplace`` and ``out``.
        inplace: Whether the caller expects its own tensor to change.
        out: The tensor to write to, where the caller gave one.
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
    def family(self) -> OperationKind:
        """Family of the operation."""
        return self.operation.family

    @property
    def input(self) -> Tensor:
        """The operand named ``input``."""
        first: Tensor = self.arguments["input"]
        return first

    def get(self, name: str, default: Any = None) -> Any:
        """An argument, or the default where it was not given."""
        return self.arguments.get(name, default)

    def operands(self) -> Iterator[Tensor]:
        """All tensors among the arguments."""
        return tensors_in(self.arguments)

    def run(self) -> Any:
        """The value, out of place."""
        return self.operation.pure(**self.arguments)

    def with_input(self, operand: Tensor) -> Call:
        """The same call on another operand ``input``."""
        return replace(self, arguments={**self.arguments, "input": operand}, inplace=False)

    def detached(self) -> Call:
        """The same call on tensors outside the graph."""
        arguments = map_tensors(self.arguments, lambda tensor: tensor.detach())
        return replace(self, arguments=arguments, inplace=False, out=None)

    def kept(self) -> Call:
        """As ``detached``, with a copy of what the call is about to overwrite."""
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


def bind(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Names the positional arguments of a call.

    Args:
        operation: The row of the table.
        args: As received by the mode.
        kwargs: As received by the mode; NumPy spellings (``axis``) are understood.
    """
    arguments = _positional(operation.parameters, args)
    for key, value in kwargs.items():
        name = key if key in operation.parameters else _SYNONYMS.get(key, key)
        arguments[name] = value
    inplace = bool(arguments.pop("inplace", False)) or operation.inplace
    out = arguments.pop("out", None)
    for detail in ("_stacklevel", "cudnn_enabled", "cudnn_enable"):
        arguments.pop(detail, None)
    return Call(operation, arguments, inplace, out)


def _positional(parameters: tuple[str, ...], args: tuple[Any, ...]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for position, name in enumerate(parameters):
        if name.startswith("*"):
            arguments[name[1:]] = _all_of(args[position:])
            return arguments
        if position < len(args):
            arguments[name] = args[position]
    return arguments


def _all_of(rest: tuple[Any, ...]) -> tuple[Any, ...]:
    """What follows, with one list of tensors opened; a list of sizes stays one argument."""
    single = len(rest) == 1 and isinstance(rest[0], (tuple, list))
    listed = single and next(tensors_in(rest), None) is not None
    return tuple(rest[0]) if listed else rest


def slope_at(call: Call, point: Tensor) -> tuple[Tensor, Tensor]:
    """Value and derivative of an elementwise function.

    Args:
        call: The call whose other arguments apply.
        point: Where to evaluate, any shape.

    Returns:
        f(point) and f'(point), as autograd defines it at kinks.
    """
    with torch.enable_grad():
        leaf = point.detach().requires_grad_()
        value = call.with_input(leaf).run()
        (slope,) = torch.autograd.grad(value, leaf, torch.ones_like(value))
    return value.detach(), slope


def is_affine(call: Call) -> bool:
    """Whether a norm uses stored statistics, which makes it a linear map."""
    if call.name == "batch_norm":
        return not call.get("training", False)
    if call.name == "instance_norm":
        return not call.get("use_input_stats", True)
    return False
