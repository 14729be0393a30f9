"""A call of a torch operator, for the rules of :mod:`voxplain.models.geometry.operators`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch._ops import OpOverload

from voxplain.models.geometry.layout import CellLayout

LayoutOf = Callable[[Tensor], "CellLayout | None"]


@dataclass(frozen=True)
class TracedCall:
    """A call of an operator with its results.

    Attributes:
        arguments: By their names in the operator's schema, with defaults.
        outputs: The tensors among the results, in order.
        layout_of: Returns the layout of a tensor, None where unknown.
    """

    arguments: Mapping[str, Any]
    outputs: tuple[Tensor, ...]
    layout_of: LayoutOf

    @classmethod
    def of(
        cls,
        operator: OpOverload,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        result: Any,
        layout_of: LayoutOf,
    ) -> TracedCall:
        """The call of an operator with these positional and keyword arguments."""
        schema = operator._schema.arguments
        arguments = {arg.name: arg.default_value for arg in schema if arg.has_default_value()}
        arguments.update(zip((argument.name for argument in schema), args, strict=False))
        arguments.update(kwargs)
        return cls(arguments, tuple(tensors_in(result)), layout_of)

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first output."""
        return tuple(self.outputs[0].shape)

    def layout(self, name: str = "self") -> CellLayout | None:
        """The layout of a tensor argument; None if it is unknown or missing."""
        value = self.arguments.get(name)
        return self.layout_of(value) if isinstance(value, Tensor) else None

    @property
    def known(self) -> list[tuple[Tensor, CellLayout]]:
        """The tensor arguments with a known layout, with their layouts."""
        pairs = ((value, self.layout_of(value)) for value in tensors_in(self.arguments))
        return [(value, layout) for value, layout in pairs if layout is not None]

    def dim(self, name: str = "dim", ndim: int | None = None) -> int:
        """An argument that is the index of a dimension, as a number from 0."""
        ndim = self.arguments["self"].ndim if ndim is None else ndim
        return int(self.arguments[name]) % max(ndim, 1)

    def dims(self, name: str = "dim") -> list[int]:
        """An argument that holds indices of dimensions; all dimensions if it is empty."""
        ndim, value = self.arguments["self"].ndim, self.arguments.get(name)
        if value is None or value == []:
            return list(range(ndim))
        return [index % max(ndim, 1) for index in ([value] if isinstance(value, int) else value)]

    def per_axis(self, name: str, rank: int) -> list[int]:
        """An argument with one value per spatial axis, or one value for all."""
        value = list(self.arguments[name])
        return value * rank if len(value) == 1 else value


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and mappings, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
