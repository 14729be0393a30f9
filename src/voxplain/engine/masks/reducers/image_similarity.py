"""How much an image under a coalition is like the image, from sums over regions alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from voxplain.engine.masks.coalitions import Coalitions
from voxplain.engine.masks.masks import Painter

_NOTHING = 1e-8
"""Below this norm an image has no direction, and its cosine with anything is 0."""


def coalition_cosines(design: Tensor) -> Tensor:
    """cos(z, 1) of every coalition, ``(n,)`` float64; 0 for the empty one."""
    rows = design.double()
    lengths = (rows.square().sum(dim=1) * rows.shape[1]).sqrt()
    return rows.sum(dim=1) / lengths.clamp_min(_NOTHING)


def image_cosines(masks: Coalitions, painters: Sequence[Painter]) -> Tensor:
    """cos(x, x_z) of every coalition, ``(n,)`` float64, as a mean over fills.

    With x_z = z x + (1 - z) fill on each region, both products are quadratic in z with three sums
    per region, so no masked image is made.

    Args:
        masks: The coalitions.
        painters: One per fill, whose removed voxels do not depend on the coalition.
    """
    found = [_cosines(masks, painter.image, painter.filled) for painter in painters]
    return torch.stack(found).mean(dim=0)


def _cosines(masks: Coalitions, image: Tensor, filled: Tensor) -> Tensor:
    own = _over_regions(masks, image, image)
    across = _over_regions(masks, image, filled)
    behind = _over_regions(masks, filled, filled)
    kept = torch.cat([masks.design, torch.ones(len(masks), 1)], dim=1).double()
    gone = 1 - kept
    product = kept @ own + gone @ across
    length = (kept**2 @ own + 2 * (kept * gone) @ across + gone**2 @ behind).clamp_min(0).sqrt()
    whole = own.sum().sqrt()
    return product / (length.clamp_min(_NOTHING) * whole.clamp_min(_NOTHING))


def _over_regions(masks: Coalitions, first: Tensor, second: Tensor) -> Tensor:
    """Sums of products over each region and, at the end, over what is in none."""
    labels, count = masks.regions.labels.to(first.device), masks.regions.count
    products = first.double() * second.double()
    if labels.ndim < products.ndim:
        products = products.sum(dim=0)
    places = torch.where(labels < 0, count, labels).flatten()
    return torch.bincount(places, products.flatten(), minlength=count + 1).cpu()


__all__ = ["coalition_cosines", "image_cosines"]
