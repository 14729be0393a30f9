"""One call of a torch operator, as the rules of :mod:`voxplain.geometry.operators` see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch._ops import OpOverload

from voxplain.models.geometry.layout import AxisLayout

LayoutOf = Callable[[Tensor], "AxisLayout | None"]


@dataclass(frozen=True)
class TracedCall:
    """An operator, its arguments by name, and what came out.

    Attributes:
        arguments: By the names of the operator's schema, defaults filled in.
        outputs: The tensors that came out, in order.
        layout_of: The layout of a tensor where it is known.
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
        """The call with positional and keyword arguments under their names."""
        schema = operator._schema.arguments
        arguments = {one.name: one.default_value for one in schema if one.has_default_value()}
        arguments.update(zip((one.name for one in schema), args, strict=False))
        arguments.update(kwargs)
        return cls(arguments, tuple(tensors_in(result)), layout_of)

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first output."""
        return tuple(self.outputs[0].shape)

    def layout(self, name: str = "self") -> AxisLayout | None:
        """The layout of a tensor argument, None if it is unknown or not given."""
        value = self.arguments.get(name)
        return self.layout_of(value) if isinstance(value, Tensor) else None

    @property
    def known(self) -> list[tuple[Tensor, AxisLayout]]:
        """Every tensor argument whose layout is known, with it."""
        pairs = ((value, self.layout_of(value)) for value in tensors_in(self.arguments))
        return [(value, layout) for value, layout in pairs if layout is not None]

    def dim(self, name: str = "dim", ndim: int | None = None) -> int:
        """An argument that names a dimension, not negative."""
        ndim = self.arguments["self"].ndim if ndim is None else ndim
        return int(self.arguments[name]) % max(ndim, 1)

    def dims(self, name: str = "dim") -> list[int]:
        """An argument that names several dimensions (or one, or none for all)."""
        ndim, value = self.arguments["self"].ndim, self.arguments.get(name)
        if value is None or value == []:
            return list(range(ndim))
        return [index % ndim for index in ([value] if isinstance(value, int) else value)]

    def per_axis(self, name: str, rank: int) -> list[int]:
        """An argument with one value per spatial axis, or one value for all."""
        value = list(self.arguments[name])
        return value * rank if len(value) == 1 else value


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists and mappings, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors_in(part)
