"""The fit of a direction, against scikit-learn and against its own optimality."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from voxplain.concepts.directions.logistic import fit_logistic


def sample() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    values = torch.randn(300, 4, generator=source) * torch.tensor([1.0, 3.0, 0.2, 1.0]) + 1
    score = values @ torch.tensor([1.0, -0.5, 2.0, 0.0]) + torch.randn(300, generator=source)
    return values, (score > 1.5).float(), torch.rand(300, generator=source) + 0.1


def test_it_is_the_balanced_regression_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    values, labels, weights = sample()
    fit = fit_logistic(values, labels, weights, ridge=1e-3)
    share = (weights / weights.sum()).double().numpy()
    x, y = values.double().numpy(), labels.numpy()
    mean = share @ x
    spread = np.sqrt(share @ (x - mean) ** 2)
    alpha = 1 - share @ y
    cost = share * np.where(y > 0, alpha, 1 - alpha)
    model = linear_model.LogisticRegression(C=1 / 1e-3, tol=1e-10, max_iter=5000)
    model.fit((x - mean) / spread, y, sample_weight=cost)
    expected = model.coef_[0] / spread
    assert np.allclose(fit.weights.numpy(), expected, rtol=1e-3, atol=1e-4)
    assert np.isclose(fit.intercept, model.intercept_[0] - expected @ mean, atol=1e-3)


def test_without_an_intercept_nothing_is_said_at_zero() -> None:
    values, labels, weights = sample()
    fit = fit_logistic(values, labels, weights, intercept=False)
    assert fit.intercept == 0.0
    assert bool(fit.weights.any())


def test_a_constant_channel_has_no_weight() -> None:
    values, labels, weights = sample()
    values[:, 3] = 7.0
    assert float(fit_logistic(values, labels, weights).weights[3]) == 0.0
