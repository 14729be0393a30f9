"""One call of a torch operator on activations that differ from the unperturbed ones in boxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch._ops import OpOverload

from voxplain.engine.acceleration.incremental.boxes import BoxSet, Reach, grown
from voxplain.engine.acceleration.incremental.cache import CachedActivation
from voxplain.engine.acceleration.incremental.value import PartialValue

Changed = tuple[BoxSet, Tensor]
"""The boxes in which the result differs, and what is there."""

MOST = 0.7
"""Boxes beyond this share of the grid are not worth being cut out."""


@dataclass(frozen=True, eq=False)
class IncrementalStep:
    """A call whose tensors are values, constants of the network, or both.

    Attributes:
        operator: As torch dispatches it.
        arguments: By the names of its schema, defaults filled in; :class:`PartialValue` for tensors
            that depend on the image.
        output: The unperturbed result.
    """

    operator: OpOverload
    arguments: Mapping[str, Any]
    output: CachedActivation

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def value(self, name: str = "self") -> PartialValue:
        """A tensor argument that depends on the image."""
        value = self.arguments[name]
        assert isinstance(value, PartialValue)
        return value

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.output.spatial)

    def per_axis(self, name: str) -> list[int]:
        """An argument with one number per spatial axis, or one for all."""
        numbers = list(self.arguments[name])
        return numbers * self.rank if len(numbers) == 1 else numbers

    def run(self, /, **replaced: Any) -> Any:
        """The operator with some arguments replaced; no :class:`PartialValue` may be left."""
        arguments = {**self.arguments, **replaced}
        schema = self.operator._schema.arguments
        positional = [arguments[one.name] for one in schema if not one.kwarg_only]
        named = {one.name: arguments[one.name] for one in schema if one.kwarg_only}
        return self.operator(*positional, **named)

    def grow(self, value: PartialValue, reaches: Sequence[Reach]) -> BoxSet | None:
        """Where the output changes with a value; None if that is nearly everywhere."""
        assert value.boxes is not None
        boxes = grown(value.boxes, reaches, self.output.spatial)
        return boxes if boxes.share(self.output.spatial) <= MOST else None


Rule = Callable[["IncrementalStep"], Changed | None]
"""Computes an operator on boxes; None where it has to be computed on everything."""


def bound(operator: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by the names of the schema, defaults filled in."""
    schema = operator._schema.arguments
    arguments = {one.name: one.default_value for one in schema if one.has_default_value()}
    arguments.update(zip((one.name for one in schema), args, strict=False))
    arguments.update(kwargs)
    return arguments
