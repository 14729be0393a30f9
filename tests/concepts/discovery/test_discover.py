"""Components of layers, against parts and groups that were planted."""

from __future__ import annotations

import pytest
import torch
from planted import Pointwise

from voxplain.concepts.discovery.discover import discover
from voxplain.concepts.discovery.stability import matched_cosines
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.errors import InputError
from voxplain.grid import Grid
from voxplain.image import Image

PARTS = torch.tensor(
    [[1.0, 2, 0, 0, 0, 0, 0.5, 0], [0, 0, 1, 1, 0, 0, 0, 1], [0, 0, 0, 0, 2, 1, 0, 0.3]]
)


def mixed(count: int = 6, noise: float = 0.02, shape: tuple[int, ...] = (12, 12)) -> Cohort:
    """Cases whose channels are sums of the parts, each present at a third of the voxels."""
    cases = []
    for number in range(count):
        source = torch.Generator().manual_seed(number)
        shares = torch.rand(3, *shape, generator=source)
        shares *= torch.rand(3, *shape, generator=source) < 0.35
        data = torch.einsum("pk,p...->k...", PARTS, shares)
        data += noise * torch.rand(data.shape, generator=source)
        image = Image(data, Grid.default(shape))
        cases.append(CohortCase(f"case{number}", f"patient{number}", image))
    return Cohort.of(cases)


def network(rank: int = 2) -> Pointwise:
    return Pointwise(torch.ones(1, 8), rank)


def test_planted_parts_and_their_number_are_found() -> None:
    found = discover(network(), mixed(), "layer", counts=(2, 3, 4, 5), repeats=5)
    assert found.record.chosen.count == 3
    assert float(matched_cosines(PARTS, found.directions.vectors).min()) > 0.99
    print(found.record)


def test_groups_of_units_are_found() -> None:
    found = discover(network(), mixed(), "layer", "profiles", counts=(2, 3, 4), repeats=5)
    print(found.record)


def test_noise_has_no_stable_parts() -> None:
    cases = [
        CohortCase(
            f"case{number}",
            f"patient{number}",
            Image(
                torch.rand(8, 12, 12, generator=torch.Generator().manual_seed(number)),
                Grid.default((12, 12)),
            ),
        )
        for number in range(6)
    ]
    with pytest.raises(InputError, match="no number of components is found again"):
        discover(network(), Cohort.of(cases), "layer", counts=(3, 4, 5), repeats=5)
