"""What is known of one image beside its voxels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.errors import InputError


@dataclass(frozen=True, eq=False)
class Case:
    """What is known of one image beside its voxels.

    Attributes:
        id: Its name in the table of scores; where empty, the number of the image in the call.
        patient: Whose image it is, where several images are of one patient: these are resampled
            together. Where empty, the case is a patient of its own.
        truth: The class that is right for the whole image, for classifiers; None if unknown.
        mask: Reference mask ``(*spatial)`` on the grid of the image (of its file, for an
            :class:`~voxplain.Image`), non-zero inside; None if there is none.
    """

    id: str = ""
    patient: str = ""
    truth: int | None = None
    mask: Tensor | None = None

    def reference(self, context: Context) -> Tensor | None:
        """The reference mask on the grid that the network sees, ``(*spatial)`` bool.

        Raises:
            InputError: If it lies neither on the grid of the image nor on that of the network.
        """
        if self.mask is None:
            return None
        inside, scan = torch.as_tensor(self.mask) != 0, context.image
        if scan is not None and tuple(inside.shape) == scan.source_grid.shape:
            inside = scan.project(inside.long()) != 0
        if tuple(inside.shape) != context.shape:
            raise InputError(
                f"a reference mask of shape {tuple(self.mask.shape)} lies neither on the grid of "
                f"the image nor on that of the network, {context.shape}"
            )
        return inside
