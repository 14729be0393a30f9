"""Reducers that fit a linear model to the scores of coalitions: LIME and Kernel SHAP."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from voxplain.engine.masks.coalitions import Coalitions
from voxplain.engine.masks.masks import Masks, Painter
from voxplain.engine.masks.reducers.base import MaskReducer, Reduction, by_region
from voxplain.engine.masks.reducers.linear_fits import explained, lasso, least_squares, ridge
from voxplain.engine.masks.reducers.trees import regression_tree

Distance = Literal["coalition", "image"]
Surrogate = Literal["ridge", "lasso", "tree"]

_ZERO_NORM = 1e-8
"""An image with a norm below this has cosine 0 with any other."""


def require_coalitions(masks: Masks) -> Coalitions:
    """The masks, if they are coalitions of regions.

    Raises:
        TypeError: If they are not.
    """
    if not isinstance(masks, Coalitions):
        raise TypeError("games and surrogates are about coalitions of regions")
    return masks


@dataclass(frozen=True)
class LocalSurrogate(MaskReducer):
    """A linear model or a tree of the score around the image (LIME).

    A coalition has the weight exp(-d^2 / (2 width^2)), d = 1 - cosine between masked and original.

    Attributes:
        distance: Whether d compares coalitions or images.
        width: Of the kernel.
        surrogate: Kind of penalty on the coefficients; ``tree`` for a regression tree.
        penalty: Strength of the penalty.
        depth: Of the tree.
        cosines: Of the masked images of one image; None before it is bound to them.
    """

    distance: Distance
    width: float
    surrogate: Surrogate
    penalty: float
    depth: int = 4
    cosines: Tensor | None = field(default=None, compare=False, repr=False)

    def bound_to(self, masks: Masks, painters: Sequence[Painter]) -> LocalSurrogate:
        """With the cosines of the masked images, if ``distance`` compares images."""
        if self.distance == "coalition":
            return self
        return replace(self, cosines=image_cosines(require_coalitions(masks), painters))

    def reduce(self, masks: Masks, scores: Tensor, full_score: float) -> Reduction:
        """The coefficient of every region, or its contribution in the tree."""
        coalitions = require_coalitions(masks)
        weights = self.weights(coalitions)
        if self.surrogate == "tree":
            return self._by_tree(coalitions, scores, weights)
        fit_model = {"ridge": ridge, "lasso": lasso}[self.surrogate]
        fit = fit_model(coalitions.design, scores, weights, self.penalty)
        findings = {"r2": fit.r2, "intercept": fit.intercept, "coalitions": len(coalitions)}
        return by_region(coalitions, fit.coefficients, findings=findings)

    def _by_tree(self, masks: Coalitions, scores: Tensor, weights: Tensor) -> Reduction:
        tree = regression_tree(masks.design, scores, weights, self.depth)
        names = [masks.regions.name(index) for index in range(masks.regions.count)]
        findings = {
            "r2": explained(scores, tree.predictions(masks.design), weights),
            "coalitions": len(masks),
            "tree": tree.listed(names),
        }
        return by_region(masks, tree.contributions(len(names)), findings=findings)

    def weights(self, masks: Coalitions) -> Tensor:
        """Weight of every coalition, ``(n,)`` float64 in (0, 1]."""
        cosines = coalition_cosines(masks.design) if self.cosines is None else self.cosines
        return torch.exp(-((1 - cosines) ** 2) / (2 * self.width**2))


def coalition_cosines(design: Tensor) -> Tensor:
    """cos(z, 1) of every coalition, ``(n,)`` float64; 0 for the empty one."""
    rows = design.double()
    lengths = (rows.square().sum(dim=1) * rows.shape[1]).sqrt()
    return rows.sum(dim=1) / lengths.clamp_min(_ZERO_NORM)


def image_cosines(masks: Coalitions, painters: Sequence[Painter]) -> Tensor:
    """cos(x, x_z) of every coalition, ``(n,)`` float64, as a mean over fills.

    With x_z = z x + (1 - z) fill on each region, both products are quadratic in z with three sums
    per region, so no masked image is computed.

    Args:
        masks: The coalitions.
        painters: One per fill; the fills must not depend on the coalition.
    """
    cosines = [_cosines(masks, painter.image, painter.filled) for painter in painters]
    return torch.stack(cosines).mean(dim=0)


def _cosines(masks: Coalitions, image: Tensor, filled: Tensor) -> Tensor:
    image_image = _region_sums(masks, image, image)
    image_fill = _region_sums(masks, image, filled)
    fill_fill = _region_sums(masks, filled, filled)
    kept = torch.cat([masks.design, torch.ones(len(masks), 1)], dim=1).double()
    removed = 1 - kept
    product = kept @ image_image + removed @ image_fill
    squared = kept**2 @ image_image + 2 * (kept * removed) @ image_fill + removed**2 @ fill_fill
    length = squared.clamp_min(0).sqrt()
    full_length = image_image.sum().sqrt()
    return product / (length.clamp_min(_ZERO_NORM) * full_length.clamp_min(_ZERO_NORM))


def _region_sums(masks: Coalitions, first: Tensor, second: Tensor) -> Tensor:
    """Sums of products over each region, and last over the voxels in no region, ``(M + 1,)``."""
    labels, count = masks.regions.labels.to(first.device), masks.regions.count
    products = first.double() * second.double()
    if labels.ndim < products.ndim:
        products = products.sum(dim=0)
    bins = torch.where(labels < 0, count, labels).flatten()
    return torch.bincount(bins, products.flatten(), minlength=count + 1).cpu()


@dataclass(frozen=True)
class ShapleyRegression(MaskReducer):
    """Kernel SHAP: the linear model that is exact for the empty and the full coalition.

    Coalitions count as often as they were drawn. If all of them are there, each has the weight of
    the Shapley kernel, which gives the Shapley values themselves.
    """

    complete: ClassVar[bool] = True

    def reduce(self, masks: Masks, scores: Tensor, full_score: float) -> Reduction:
        """Least squares under the constraint that the values sum to S(x) - S(empty).

        The findings say whether the coalitions determine the values; if not, these are the ones
        of least norm.
        """
        coalitions = require_coalitions(masks)
        design, count = coalitions.design.double(), coalitions.regions.count
        sizes = design.sum(dim=1)
        empty = float(scores[int(sizes.argmin())])
        inner = (sizes > 0) & (sizes < count)
        rows, weights = design[inner], kernel_weights(design[inner])
        mean_value = (full_score - empty) / count
        # Without the mean, values sum to 0, and the mean of each row has no effect.
        residual = scores[inner] - empty - rows.sum(dim=1) * mean_value
        values = torch.full((count,), mean_value, dtype=torch.float64)
        findings: dict[str, Any] = {"coalitions": len(rows), "r2": None}
        if len(rows):
            centered = rows - rows.mean(dim=1, keepdim=True)
            deviations, rank = least_squares(centered, residual, weights)
            values += deviations - deviations.mean()
            findings["determined"] = rank == count - 1
            findings["r2"] = explained(scores[inner], empty + rows @ values, weights)
        return by_region(coalitions, values, float(values.sum()), empty, findings)


def kernel_weights(rows: Tensor) -> Tensor:
    """Weights of coalitions ``(n, M)``: the Shapley kernel if all are there, else 1 each."""
    count = rows.shape[1]
    if count > 30 or len({row.numpy().tobytes() for row in rows}) < 2**count - 2:
        return torch.ones(len(rows), dtype=torch.float64)
    sizes = rows.sum(dim=1)
    subsets = torch.tensor([math.comb(count, int(size)) for size in sizes.tolist()])
    return (count - 1) / (subsets.double() * sizes * (count - sizes))
