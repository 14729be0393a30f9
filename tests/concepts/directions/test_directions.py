"""Directions: reading, decoding, units, and files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from voxplain.concepts.directions.directions import Directions
from voxplain.errors import InputError


def some(count: int = 3, channels: int = 5) -> Directions:
    torch.manual_seed(0)
    names = tuple(f"d{number}" for number in range(count))
    return Directions.linear("layer", torch.rand(count, channels), names, torch.rand(count))


def test_a_linear_reading_is_a_weighted_sum_at_every_place() -> None:
    directions, activation = some(), torch.randn(5, 4, 3)
    expected = torch.einsum("dk,kxy->dxy", directions.readout, activation)
    expected += directions.offset[:, None, None]
    assert torch.allclose(directions.encode(activation), expected, atol=1e-6)
    assert torch.allclose(directions.vectors.norm(dim=1), torch.ones(3))


def test_of_a_sparse_reading_the_largest_positive_are_left() -> None:
    directions, activation = replace(some(), reading="top_k", active=1), torch.randn(5, 7)
    full, sparse = some().encode(activation), directions.encode(activation)
    largest = full.amax(dim=0)
    assert torch.equal(sparse.amax(dim=0), largest.relu())
    assert torch.equal((sparse > 0).sum(dim=0), (largest > 0).long())


def test_parts_are_read_by_least_squares_that_are_not_negative() -> None:
    directions = replace(some(), reading="parts")
    activation = torch.rand(5, 6)
    found = directions.encode(activation)
    basis = directions.vectors.T.double().numpy()
    for column in range(6):
        expected, _ = nnls(basis, activation[:, column].double().numpy())
        assert np.allclose(found[:, column].numpy(), expected, atol=1e-3)


def test_directions_are_units_that_can_be_intervened_on() -> None:
    directions, activation = some(), torch.randn(5, 4)
    part = directions.units(1).part_of(activation)
    vector = directions.vectors[1]
    assert torch.allclose(part, vector[:, None] * (vector @ activation), atol=1e-6)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    directions = replace(some(), reading="top_k", active=2, found_by="hand")
    loaded = Directions.load(directions.save(tmp_path / "found.safetensors"))
    activation = torch.randn(5, 4)
    assert torch.equal(loaded.encode(activation), directions.encode(activation))
    assert loaded.record == directions.record


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = some().save(tmp_path / "found.safetensors")
    some(2).save(tmp_path / "other.safetensors")
    (tmp_path / "other.json").replace(tmp_path / "found.json")
    with pytest.raises(InputError, match="do not hold the same directions"):
        Directions.load(path)
    path.write_bytes(b"not tensors")
    with pytest.raises(InputError, match="cannot be read"):
        Directions.load(path)
    with pytest.raises(InputError, match="saved as"):
        some().save(tmp_path / "found.pkl")
