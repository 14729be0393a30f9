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
from voxplain.engine.masks.reducers.image_similarity import coalition_cosines, image_cosines
from voxplain.engine.masks.reducers.linear_fits import explained, lasso, least_squares, ridge

Distance = Literal["coalition", "image"]
Surrogate = Literal["ridge", "lasso"]


def over_regions(masks: Masks) -> Coalitions:
    """These masks, which a game or a surrogate needs to be coalitions of regions."""
    if not isinstance(masks, Coalitions):
        raise TypeError("games and surrogates are about coalitions of regions")
    return masks


@dataclass(frozen=True)
class LocalSurrogate(MaskReducer):
    """A linear model of the score around the image (LIME).

    Coalitions weigh exp(-d^2 / (2 width^2)), d = 1 - cosine of what is left and what was there.

    Attributes:
        distance: Cosine of the coalitions or of the images.
        width: Of the kernel.
        surrogate: How coefficients are held small.
        penalty: On the coefficients.
        cosines: Of the images of one item; None before it is seen.
    """

    distance: Distance
    width: float
    surrogate: Surrogate
    penalty: float
    cosines: Tensor | None = field(default=None, compare=False, repr=False)

    def facing(self, masks: Masks, painters: Sequence[Painter]) -> LocalSurrogate:
        """Compares the images, where their cosine is asked for."""
        if self.distance == "coalition":
            return self
        return replace(self, cosines=image_cosines(over_regions(masks), painters))

    def reduce(self, masks: Masks, scores: Tensor, whole: float) -> Reduction:
        """The coefficient of every region."""
        coalitions = over_regions(masks)
        weights = self.weights(coalitions)
        chosen = {"ridge": ridge, "lasso": lasso}[self.surrogate]
        fit = chosen(coalitions.design, scores, weights, self.penalty)
        findings = {"r2": fit.r2, "intercept": fit.intercept, "coalitions": len(coalitions)}
        return by_region(coalitions, fit.coefficients, findings=findings)

    def weights(self, masks: Coalitions) -> Tensor:
        """Of every coalition, ``(n,)`` float64, in (0, 1]."""
        cosines = coalition_cosines(masks.design) if self.cosines is None else self.cosines
        return torch.exp(-((1 - cosines) ** 2) / (2 * self.width**2))


@dataclass(frozen=True)
class ShapleyRegression(MaskReducer):
    """The linear model that is exact for the empty coalition and the whole, and else closest.

    Coalitions count as often as they were drawn; where all are there, each once under the Shapley
    kernel, which gives the Shapley values themselves.
    """

    complete: ClassVar[bool] = True

    def reduce(self, masks: Masks, scores: Tensor, whole: float) -> Reduction:
        """Least squares in the plane where the values sum to S(x) - S(empty).

        Findings say whether the coalitions determine the values; else these are the most even ones.
        """
        coalitions = over_regions(masks)
        design, count = coalitions.design.double(), coalitions.regions.count
        sizes = design.sum(dim=1)
        empty = float(scores[int(sizes.argmin())])
        inner = (sizes > 0) & (sizes < count)
        rows, weights = design[inner], kernel_weights(design[inner])
        even = (whole - empty) / count
        # Without the even share, coefficients sum to zero and only the rest of the rows matters.
        residual = scores[inner] - empty - rows.sum(dim=1) * even
        values = torch.full((count,), even, dtype=torch.float64)
        findings: dict[str, Any] = {"coalitions": len(rows), "r2": None}
        if len(rows):
            centered = rows - rows.mean(dim=1, keepdim=True)
            away, rank = least_squares(centered, residual, weights)
            values += away - away.mean()
            findings["determined"] = rank == count - 1
            findings["r2"] = explained(scores[inner], empty + rows @ values, weights)
        return by_region(coalitions, values, float(values.sum()), empty, findings)


def kernel_weights(rows: Tensor) -> Tensor:
    """Weights of coalitions ``(n, M)``: the Shapley kernel if they are all there, else 1 each."""
    count = rows.shape[1]
    if count > 30 or len({row.numpy().tobytes() for row in rows}) < 2**count - 2:
        return torch.ones(len(rows), dtype=torch.float64)
    sizes = rows.sum(dim=1)
    subsets = torch.tensor([math.comb(count, int(size)) for size in sizes.tolist()])
    return (count - 1) / (subsets.double() * sizes * (count - sizes))


__all__ = [
    "Distance",
    "LocalSurrogate",
    "ShapleyRegression",
    "Surrogate",
    "kernel_weights",
    "over_regions",
]
