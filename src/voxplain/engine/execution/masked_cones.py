"""Scores under masks where only what a mask changes is computed: the cone of a box, or of a layer.

What the network computes for the image itself is kept. A box changes its cone of every layer; a
change at a layer leaves alone what lies before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from voxplain.engine.acceleration.incremental import Incremental, estimate_work
from voxplain.engine.masks.masks import Masks, Region
from voxplain.engine.passes.base import Passes
from voxplain.engine.requests import Choice

_WORTH_TRYING = 16
"""Finding out costs about five forwards."""
_LOOKED_AT = 32
"""Masks that stand for all of them."""
_MOST_KEPT = 4 * 2**30
"""Bytes of activations that may be kept."""


class ConeScores:
    """S of one image under masks, exact up to rounding.

    Args:
        incremental: The network on the unmasked image.
        passes: Whose weight field is summed up.
        row: Index of the image in the batch.
    """

    def __init__(self, incremental: Incremental, passes: Passes, row: int) -> None:
        self.incremental, self.passes, self.row = incremental, passes, row

    @classmethod
    def where_it_pays(
        cls, choice: Choice, passes: Passes, masks: Masks, image: Tensor, row: int, count: int
    ) -> ConeScores | None:
        """Cones of these masks, or None where plain forwards are as good.

        Args:
            choice: What was asked for.
            passes: How masked images are scored otherwise.
            masks: Their boxes should be much smaller than the image.
            image: Without mask, ``(C, *spatial)``.
            row: Its index in the batch.
            count: How many masks will be run.
        """
        plain = passes.in_windows or passes.bound.layer is not None
        plain = plain or passes.model.behavior.one_by_one
        if choice == "off" or plain or (choice == "auto" and count < _WORTH_TRYING):
            return None
        incremental = Incremental(passes.model, image)
        if choice == "auto" and not masks.at_layer:
            box = _middle(masks)
            if box is None or not estimate_work(incremental, box).pays:
                return None
        if incremental.nbytes > _MOST_KEPT:
            return None
        return cls(incremental, passes, row)

    def scores(self, images: Tensor, masks: Masks, indices: Sequence[int]) -> Tensor:
        """S under some masks, ``(k,)`` float64 on the CPU.

        Args:
            images: The image under each of them, ``(k, C, *spatial)``.
            masks: All masks.
            indices: Which of them.
        """
        self.passes.log.forwards += len(indices)
        with self.passes.model.precise():
            changes = masks.changes(indices)
            if changes is not None:
                output = self.incremental.outputs_with_changes(changes, len(indices))
            else:
                output = self.incremental.outputs(images, [masks.box(index) for index in indices])
            with torch.no_grad():
                rebind = self.passes.rebind
                bound = (
                    rebind(output) if rebind else self.passes.bound.rows([self.row] * len(output))
                )
                return bound.score(output).cpu()


def _middle(masks: Masks) -> Region | None:
    """A typical box of the masks; None if it is most of the image."""
    spread = range(0, len(masks), max(1, len(masks) // _LOOKED_AT))
    boxes = [masks.box(index) for index in spread]
    box = sorted(boxes, key=_volume)[len(boxes) // 2]
    whole = tuple(slice(0, side) for side in masks.shape)
    return box if 2 * _volume(box) <= _volume(whole) and _volume(box) > 0 else None


def _volume(box: Region) -> int:
    total = 1
    for side in box:
        total *= side.stop - side.start
    return total
