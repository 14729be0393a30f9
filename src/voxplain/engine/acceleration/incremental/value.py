"""An activation that differs from the unperturbed one in a box per image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.engine.acceleration.incremental.boxes import BoxSet, blank, covers, cut, overlay
from voxplain.engine.acceleration.incremental.cache import CachedActivation


@dataclass(frozen=True, eq=False)
class PartialValue:
    """A batch of activations, of which only what has changed is held.

    Attributes:
        base: The unperturbed activation ``(1, C, *spatial)``.
        count: Number of images k.
        boxes: Outside of which nothing differs; None where nothing differs at all.
        patch: The content of the boxes, ``(k, C, *size)``.
    """

    base: CachedActivation
    count: int
    boxes: BoxSet | None = None
    patch: Tensor | None = None

    @property
    def clean(self) -> bool:
        """Whether nothing differs from the unperturbed image."""
        return self.boxes is None

    @property
    def shape(self) -> tuple[int, ...]:
        """As the network sees it, ``(k, C, *spatial)``."""
        return (self.count, *self.base.shape[1:])

    def content(self, boxes: BoxSet, fill: float = 0.0) -> Tensor:
        """What lies in other boxes, ``(k, C, *size)``.

        Args:
            boxes: May reach outside the grid.
            fill: What lies there.
        """
        if self.boxes is None or self.patch is None:
            return cut(self.base.read(), boxes, fill)
        if boxes.same(self.boxes):
            return self.patch
        if covers(self.boxes, boxes, self.base.spatial):
            content = blank(self.patch, boxes, self.base.spatial, fill)
        else:
            content = cut(self.base.read(), boxes, fill)
        return overlay(content, boxes, self.patch, self.boxes)

    def whole(self) -> Tensor:
        """The full activations ``(k, C, *spatial)``; not to be written to where nothing differs."""
        whole = self.base.read().expand(self.shape)
        if self.boxes is None or self.patch is None:
            return whole
        whole = whole.clone(memory_format=torch.contiguous_format)
        for image, place in enumerate(self.boxes.places()):
            whole[place] = self.patch[image]
        return whole
