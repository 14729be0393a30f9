"""Weighted fits against their conditions and scikit-learn, and cosines against masked images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from networks import assert_close
from torch import Tensor, nn

from voxplain.engine.masks import Coalitions
from voxplain.engine.masks.coalition_designs import every_coalition
from voxplain.engine.masks.reducers.linear_fits import explained, lasso, ridge
from voxplain.engine.masks.reducers.surrogates import (
    ShapleyRegression,
    coalition_cosines,
    image_cosines,
)
from voxplain.regions import RegionMap


def _game(rows: int, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Coalitions, scores and weights."""
    source = torch.Generator().manual_seed(seed)
    design = (torch.rand(rows, count, generator=source) < 0.5).double()
    scores = torch.randn(rows, generator=source, dtype=torch.float64) + design @ torch.randn(
        count, generator=source, dtype=torch.float64
    )
    return design, scores, torch.rand(rows, generator=source, dtype=torch.float64)


@pytest.mark.parametrize("penalty", [0.0, 0.3, 20.0])
def test_ridge_is_where_the_gradient_vanishes(penalty: float) -> None:
    design, scores, weights = _game(60, 12, 0)
    fit = ridge(design, scores, weights, penalty)
    residual = scores - fit.intercept - design @ fit.coefficients
    assert float((weights * residual).sum()) == pytest.approx(0, abs=1e-9)
    gradient = design.T @ (weights * residual) - penalty * fit.coefficients
    assert float(gradient.abs().max()) < 1e-9
    mean = (weights * scores).sum() / weights.sum()
    spread = (weights * (scores - mean) ** 2).sum()
    assert fit.r2 == pytest.approx(1 - float((weights * residual**2).sum() / spread), abs=1e-12)


@pytest.mark.parametrize("penalty", [1e-4, 0.01, 0.1, 0.5])
def test_lasso_is_that_of_scikit_learn(penalty: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    design, scores, weights = _game(80, 15, 1)
    fit = lasso(design, scores, weights, penalty)
    model = linear_model.Lasso(alpha=penalty, tol=1e-12, max_iter=100_000)
    model.fit(design.numpy(), scores.numpy(), sample_weight=weights.numpy())
    assert np.abs(model.coef_ - fit.coefficients.numpy()).max() < 1e-7
    assert model.intercept_ == pytest.approx(fit.intercept, abs=1e-7)
    if penalty > 0.05:
        assert 0 < int((fit.coefficients == 0).sum()) < 15


def test_a_fit_that_is_not_unique_is_the_smallest_one() -> None:
    design, scores, weights = _game(5, 12, 2)
    fit = ridge(design, scores, weights, 0)
    nearly = ridge(design, scores, weights, 1e-9)
    assert_close(fit.coefficients, nearly.coefficients, 1e-5)
    assert fit.r2 == pytest.approx(1)


def test_r2_of_scores_that_do_not_vary_is_unknown() -> None:
    level = torch.full((9,), 1e6, dtype=torch.float64)
    assert explained(level, level, torch.ones(9)) is None
    assert ridge(torch.rand(9, 2), level, torch.ones(9), 1.0).r2 is None


def test_kernel_shap_is_the_constrained_fit() -> None:
    """Where the gradient along the plane of complete values vanishes."""
    design, scores, _ = _game(60, 9, 5)
    design[0] = 0
    masks = Coalitions(RegionMap(torch.arange(9).view(3, 3)), design.float(), (3, 3))
    result = ShapleyRegression().reduce(masks, scores, full_score=4.0)
    phi = result.map.flatten()
    assert result.empty == scores[0]
    assert float(phi.sum()) == pytest.approx(4.0 - float(scores[0]), abs=1e-12)
    inner = (design.sum(dim=1) > 0) & (design.sum(dim=1) < 9)
    gradient = design[inner].T @ (scores[inner] - scores[0] - design[inner] @ phi)
    assert float((gradient - gradient.mean()).abs().max()) < 1e-9
    assert float(gradient.mean().abs()) > 1e-3  # not zero, because of the constraint


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("per_channel", [False, True], ids=["regions", "regions per channel"])
@pytest.mark.parametrize("level", [0.0, 0.7])
def test_cosines_are_those_of_the_masked_images(rank: int, per_channel: bool, level: float) -> None:
    source = torch.Generator().manual_seed(rank)
    image = torch.randn(3, *(6,) * rank, generator=source)
    shape = image.shape if per_channel else image.shape[1:]
    labels = torch.randint(-1, 7, tuple(shape), generator=source)
    design = torch.cat([torch.rand(5, 7, generator=source), every_coalition(7)[::9]])
    masks = Coalitions(RegionMap(labels), design, tuple(image.shape[1:]))
    filled = torch.full_like(image, level)
    painters = [masks.painter(image, filled), masks.painter(image, image.flip(0))]
    expected = torch.stack([_masked_cosines(painter, image, len(design)) for painter in painters])
    torch.testing.assert_close(image_cosines(masks, painters[:1]), expected[0])
    torch.testing.assert_close(image_cosines(masks, painters), expected.mean(dim=0))


def _masked_cosines(painter: Any, image: Tensor, count: int) -> Tensor:
    shown = torch.cat([painter.painted([index]).clone() for index in range(count)]).double()
    original = image.double().expand_as(shown).flatten(1)
    return nn.functional.cosine_similarity(shown.flatten(1), original, dim=1)


def test_an_empty_image_has_cosine_zero() -> None:
    image = torch.rand(1, 4, 4)
    masks = Coalitions(RegionMap(torch.zeros(4, 4).long()), every_coalition(1), (4, 4))
    assert image_cosines(masks, [masks.painter(image, 0 * image)]).tolist() == [0, 1]
    assert coalition_cosines(every_coalition(2)).tolist() == pytest.approx(
        [0, 0.5**0.5] * 1 + [0.5**0.5, 1]
    )
