"""Silhouettes against scikit-learn, matching, and resampled patients."""

from __future__ import annotations

import math

import pytest
import torch

from voxplain.concepts.discovery.nmf import factorize
from voxplain.concepts.stability import matched_cosines, resamples, silhouette


def test_the_silhouette_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0] * 8 + [1] * 11 + [2])
    distances = torch.cdist(points.double(), points.double())
    distances.fill_diagonal_(0)
    expected = metrics.silhouette_score(distances.numpy(), labels.numpy(), metric="precomputed")
    assert math.isclose(silhouette(distances, labels), expected, rel_tol=1e-6)
    assert math.isnan(silhouette(distances, torch.zeros(20)))


def test_vectors_are_matched_whatever_their_order_and_length() -> None:
    vectors = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    shuffled = 3 * vectors[torch.tensor([2, 0, 4, 1, 3])]
    assert torch.allclose(matched_cosines(vectors, shuffled), torch.ones(5), atol=1e-5)


def test_patients_are_resampled_as_a_whole() -> None:
    rows = {name: torch.arange(3) + 3 * number for number, name in enumerate("abcd")}
    for drawn in resamples(rows, 5, (0,)):
        assert len(drawn) == 12
        assert bool((drawn.view(4, 3) % 3 == torch.arange(3)).all())


def test_a_factorization_explains_as_much_as_that_of_scikit_learn() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    source = torch.Generator().manual_seed(0)
    values = torch.rand(80, 4, generator=source) @ torch.rand(4, 9, generator=source)
    values = values.double() + 0.05 * torch.rand(80, 9, generator=source)
    found = factorize(values, 3, (0,))
    reference = decomposition.NMF(3, init="nndsvda", max_iter=2000, tol=1e-8).fit(values.numpy())
    explained = 1 - reference.reconstruction_err_**2 / float(values.square().sum())
    assert found.explained >= explained - 1e-3
    assert float(found.parts.min()) >= 0
    assert float(found.shares.min()) >= 0
