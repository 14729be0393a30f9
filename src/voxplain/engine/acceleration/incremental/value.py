"""Activations that differ from the unperturbed ones in a box per image, and operators on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from voxplain.engine.acceleration.incremental.boxes import (
    BoxSet,
    Reach,
    affected_boxes,
    allocate,
    covers,
    crop,
    overlay,
)
from voxplain.engine.acceleration.incremental.cache import CachedActivation

ChangedBoxes = tuple[BoxSet, Tensor]
"""The boxes in which a result differs from the unperturbed one, and their content."""

LARGEST_FRACTION = 0.7
"""Boxes that cover more of the grid are not cut out; the operator runs on the full tensors."""


@dataclass(frozen=True, eq=False)
class PartialValue:
    """A batch of activations, stored as the unperturbed activation and one changed box per image.

    Attributes:
        base: The unperturbed activation ``(1, C, *spatial)``.
        count: Number of images k.
        boxes: Nothing differs outside of them; None if nothing differs at all.
        patch: The content of the boxes, ``(k, C, *size)``.
    """

    base: CachedActivation
    count: int
    boxes: BoxSet | None = None
    patch: Tensor | None = None

    @property
    def unchanged(self) -> bool:
        """Whether the activations are those of the unperturbed image."""
        return self.boxes is None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the full activations, ``(k, C, *spatial)``."""
        return (self.count, *self.base.shape[1:])

    def content(self, boxes: BoxSet, fill: float = 0.0) -> Tensor:
        """The activations inside other boxes, ``(k, C, *size)``.

        Args:
            boxes: May reach outside the grid.
            fill: Value outside the grid.
        """
        if self.boxes is None or self.patch is None:
            return crop(self.base.read(), boxes, fill)
        if boxes.same(self.boxes):
            return self.patch
        if covers(self.boxes, boxes, self.base.spatial):
            content = allocate(self.patch, boxes, self.base.spatial, fill)
        else:
            content = crop(self.base.read(), boxes, fill)
        return overlay(content, boxes, self.patch, self.boxes)

    def full(self) -> Tensor:
        """The full activations ``(k, C, *spatial)``; read-only if nothing differs."""
        full = self.base.read().expand(self.shape)
        if self.boxes is None or self.patch is None:
            return full
        full = full.clone(memory_format=torch.contiguous_format)
        for image, index in enumerate(self.boxes.indices()):
            full[index] = self.patch[image]
        return full


@dataclass(frozen=True, eq=False)
class IncrementalStep:
    """One call of a torch operator with at least one :class:`PartialValue` among its arguments.

    Attributes:
        operator: As torch dispatches it.
        arguments: By the names of the operator's schema, defaults filled in; a
            :class:`PartialValue` in the place of each tensor that depends on the image.
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
        """An argument with one number per spatial axis, or one for all axes."""
        numbers = list(self.arguments[name])
        return numbers * self.rank if len(numbers) == 1 else numbers

    def run(self, /, **replaced: Any) -> Any:
        """Runs the operator with some arguments replaced; every value must be among them."""
        arguments = {**self.arguments, **replaced}
        schema = self.operator._schema.arguments
        positional = [arguments[slot.name] for slot in schema if not slot.kwarg_only]
        keywords = {slot.name: arguments[slot.name] for slot in schema if slot.kwarg_only}
        return self.operator(*positional, **keywords)

    def affected(self, value: PartialValue, reaches: Sequence[Reach]) -> BoxSet | None:
        """The boxes in which the output changes with a value; None if they cover nearly all."""
        assert value.boxes is not None
        boxes = affected_boxes(value.boxes, reaches, self.output.spatial)
        return boxes if boxes.fraction(self.output.spatial) <= LARGEST_FRACTION else None


BoxRule = Callable[[IncrementalStep], ChangedBoxes | None]
"""Computes an operator on boxes; returns None if it has to run on the full tensors."""


def bind_arguments(
    operator: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by the names of the operator's schema, defaults filled in."""
    schema = operator._schema.arguments
    arguments = {slot.name: slot.default_value for slot in schema if slot.has_default_value()}
    arguments.update(zip((slot.name for slot in schema), args, strict=False))
    arguments.update(kwargs)
    return arguments


def keeps_images_apart(
    func: OpOverload, args: Sequence[Any], keywords: Mapping[str, Any], ndim: int
) -> bool:
    """Whether the arguments of a call say that it treats the images of a batch one by one."""
    arguments = bind_arguments(func, args, keywords)
    if arguments.get("training") or (arguments.get("repeats") or [1])[0] != 1:
        return False
    for name in ("dim", "dims"):
        if name in arguments:
            axes = arguments[name]
            axes = [axes] if isinstance(axes, int) else list(axes or [])
            return bool(axes) and all(axis % ndim for axis in axes)
    return func._schema.name not in _REDUCTIONS


_REDUCTIONS = frozenset({"aten::sum", "aten::mean", "aten::amax", "aten::amin"})
