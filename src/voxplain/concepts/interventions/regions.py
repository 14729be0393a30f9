"""Images in which one region looks like another one, or a lesion is removed or added."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from voxplain.engine.masks.imputation import impute

Swap = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From an image ``(C, *spatial)``, the mask whose look is taken and the mask that is changed, both
``(*spatial)`` bool, to another image."""


def mean_shift(image: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """The target moved by the difference of the means, per channel: contrast inside it stays."""
    shift = image[:, source].mean(dim=1) - image[:, target].mean(dim=1)
    other = image.clone()
    other[:, target] += shift[:, None]
    return other


def histogram_match(image: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """The target with the values of the source, per channel; the order of its voxels stays."""
    other = image.clone()
    count = int(target.sum())
    at = (torch.arange(count, device=image.device, dtype=torch.float64) + 0.5) / count
    for channel in range(len(image)):
        wanted = torch.quantile(image[channel, source].double(), at).to(image)
        ranks = image[channel, target].argsort().argsort()
        other[channel, target] = wanted[ranks]
    return other


SWAPS: Mapping[str, Swap] = {"mean_shift": mean_shift, "histogram": histogram_match}


def removed(image: Tensor, lesion: Tensor, spacing: tuple[float, ...] | None) -> Tensor:
    """The image with a lesion filled in from the voxels around it."""
    return impute(image, lesion.expand_as(image), spacing)


def inserted(image: Tensor, free: Tensor, donor: Tensor, lesion: Tensor) -> tuple[Tensor, Tensor]:
    """The image with the lesion of another case, and where it is.

    The centers of both grids coincide.

    Args:
        image: ``(C, *spatial)``.
        free: Where a lesion may be, ``(*spatial)`` bool.
        donor: The other image, on any number of voxels.
        lesion: Its lesion.
    """
    shape, from_shape = image.shape[1:], donor.shape[1:]
    places = lesion.nonzero()
    halves = [(own - other) // 2 for own, other in zip(shape, from_shape, strict=True)]
    moved = places + torch.tensor(halves, device=places.device)
    limits = torch.tensor(shape, device=places.device)
    inside = ((moved >= 0) & (moved < limits)).all(dim=1)
    places, moved = places[inside], moved[inside]
    allowed = free[tuple(moved.T)]
    places, moved = places[allowed], moved[allowed]
    other, mask = image.clone(), torch.zeros_like(free)
    other[(slice(None), *moved.T)] = donor[(slice(None), *places.T)].to(image)
    mask[tuple(moved.T)] = True
    return other, mask
