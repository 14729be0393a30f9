"""Sparse directions, against dictionaries that were planted."""

from __future__ import annotations

import math

import pytest
import torch
from planted import Pointwise, backwards, one_slice
from torch.nn import functional

from voxplain.concepts.directions.sparse_directions import (
    SparseDirections,
    explained_share,
    sparse_directions,
)
from voxplain.concepts.stability import matched_cosines
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.errors import ConfigError, InputError
from voxplain.grid import Grid
from voxplain.image import Image

CHANNELS, ATOMS = 16, 16


def dictionary() -> torch.Tensor:
    source = torch.Generator().manual_seed(5)
    return functional.normalize(torch.randn(ATOMS, CHANNELS, generator=source), dim=1)


def sparse_cohort(count: int = 4, shape: tuple[int, ...] = (24, 24)) -> Cohort:
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


def trained(cases: Cohort, rank: int = 2, **options: object) -> SparseDirections:
    network = Pointwise(torch.ones(1, CHANNELS), rank)
    settings = {"directions": 2 * ATOMS, "active": 2, "seeds": 2, "steps": 500, **options}
    return sparse_directions(network, cases, "layer", **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def found() -> SparseDirections:
    return trained(sparse_cohort())


def test_a_planted_dictionary_is_recovered(found: SparseDirections) -> None:
    assert float(matched_cosines(dictionary(), found.directions.vectors).min()) > 0.95


def test_it_says_how_far_to_trust_it(found: SparseDirections) -> None:
    record = found.record
    assert record.explained > 0.9 > record.explained_by_axes
    assert record.mean_active <= 2
    assert {*record.dead} == {
        number for number, each in enumerate(record.directions) if each.frequency == 0
    }
    used = [each.stability for each in record.directions if each.frequency > 0.03]
    assert sorted(used)[len(used) // 2] > 0.99
    assert math.isclose(sum(each.energy for each in record.directions), 1, rel_tol=1e-3)
    assert record.random_cosine < record.stability
    assert record == type(record).model_validate_json(record.model_dump_json()) or record.dead


def test_directions_have_length_one_and_are_units(found: SparseDirections) -> None:
    assert torch.allclose(found.directions.vectors.norm(dim=1), torch.ones(2 * ATOMS), atol=1e-5)
    assert torch.equal(found.units(3).directions, found.directions.vectors[3:4])
    code = found.directions.encode(torch.randn(CHANNELS, 5, 4))
    assert code.shape == (2 * ATOMS, 5, 4)
    assert int((code > 0).sum(dim=0).max()) <= 2


def test_explained_share_of_perfect_and_of_no_reading(found: SparseDirections) -> None:
    values = found.directions.decode(torch.eye(2 * ATOMS)[:, :4]).T
    assert explained_share(found.directions, values) <= 1
    assert explained_share(found.directions, torch.randn(50, CHANNELS)) < 0.7


def test_neither_order_nor_rank_changes_anything() -> None:
    cases = sparse_cohort(3, (8, 8))
    selection, scored = cases.only(cases.ids[:2]), cases.only(cases.ids[2:])
    first = trained(selection, steps=20, held_out=scored)
    second = trained(backwards(one_slice(selection)), rank=3, steps=20, held_out=one_slice(scored))
    assert torch.allclose(first.directions.vectors, second.directions.vectors, atol=1e-4)
    assert first.record.explained == pytest.approx(second.record.explained, abs=1e-3)


def test_what_does_not_fit_is_said_in_a_sentence() -> None:
    cases = sparse_cohort(2, (6, 6))
    with pytest.raises(ConfigError, match="40 of 32 directions cannot be active"):
        trained(cases, active=40)
    with pytest.raises(InputError, match="has 1; it takes two at least"):
        trained(cases.only(cases.ids[:1]))
    same = Image(torch.ones(CHANNELS, 4, 4), Grid.default((4, 4)))
    constant = Cohort.of([CohortCase(name, name, same) for name in "ab"])
    with pytest.raises(InputError, match="same activation in all"):
        trained(constant)
