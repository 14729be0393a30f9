"""Sparse directions, against dictionaries that were planted."""

from __future__ import annotations

import pytest
import torch
from planted import Pointwise
from torch.nn import functional

from voxplain.concepts.directions.sparse_directions import SparseDirections, sparse_directions
from voxplain.concepts.discovery.stability import matched_cosines
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.grid import Grid
from voxplain.image import Image

CHANNELS, ATOMS = 20, 24


def dictionary() -> torch.Tensor:
    source = torch.Generator().manual_seed(5)
    return functional.normalize(torch.randn(ATOMS, CHANNELS, generator=source), dim=1)


def sparse_cohort(count: int = 4, shape: tuple[int, ...] = (32, 32)) -> Cohort:
    """Cases in which every voxel is a sum of two atoms of the dictionary."""
    cases = []
    for number in range(count):
        source = torch.Generator().manual_seed(number)
        code = torch.zeros(ATOMS, *shape)
        chosen = torch.rand(ATOMS, *shape, generator=source).topk(2, dim=0).indices
        code.scatter_(0, chosen, 0.5 + torch.rand(2, *shape, generator=source))
        data = torch.einsum("ak,a...->k...", dictionary(), code)
        image = Image(data, Grid.default(shape))
        cases.append(CohortCase(f"case{number}", f"patient{number}", image))
    return Cohort.of(cases)


@pytest.fixture(scope="module")
def found() -> SparseDirections:
    network = Pointwise(torch.ones(1, CHANNELS))
    return sparse_directions(
        network, sparse_cohort(), "layer", directions=2 * ATOMS, active=2, seeds=2, steps=700
    )


def test_a_planted_dictionary_is_recovered(found: SparseDirections) -> None:
    cosines = matched_cosines(dictionary(), found.directions.vectors)
    assert float(cosines.min()) > 0.95
    print(found.record, cosines)
