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
        ignore: The value of the mask whose voxels are left out of what is compared with it; None
            for none.
    """

    id: str = ""
    patient: str = ""
    truth: int | None = None
    mask: Tensor | None = None
    ignore: int | None = None

    def reference(self, context: Context) -> Tensor | None:
        """The reference mask on the grid that the network sees, ``(*spatial)`` bool.

        Raises:
            InputError: If it lies neither on the grid of the image nor on that of the network.
        """
        if self.mask is None:
            return None
        values = torch.as_tensor(self.mask)
        return self._on_network((values != 0) & (values != self.ignore), context)

    def ignored(self, context: Context) -> Tensor | None:
        """Where the reference says nothing, on the grid that the network sees, ``(*spatial)`` bool.

        None where it speaks of all voxels.

        Raises:
            InputError: As :meth:`reference`.
        """
        if self.mask is None or self.ignore is None:
            return None
        ignored = self._on_network(torch.as_tensor(self.mask) == self.ignore, context)
        return ignored if bool(ignored.any()) else None

    def _on_network(self, inside: Tensor, context: Context) -> Tensor:
        scan = context.image
        if scan is not None and tuple(inside.shape) == scan.source_grid.shape:
            inside = scan.project(inside.long()) != 0
        if tuple(inside.shape) != context.shape:
            raise InputError(
                f"a reference mask of shape {tuple(inside.shape)} lies neither on the grid of "
                f"the image nor on that of the network, {context.shape}"
            )
        return inside
