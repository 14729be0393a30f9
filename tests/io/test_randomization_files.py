"""Cascades in and out of a run directory."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from voxplain.io.randomization import (
    MapRandomized,
    RandomizationRecord,
    read_pictures,
    read_randomizations,
    similarities,
    write_randomization,
)


def record(case: str = "p01", **facts: object) -> RandomizationRecord:
    curves = {"spearman": [[1.0, None, 0.25], [1.0, 0.5, 0.75]]}
    part = MapRandomized(method="saliency", similarity=curves, chance={"spearman": [None]})
    return RandomizationRecord(
        case=case,
        model="unet",
        target="1",
        order="top_down",
        stages=[[], ["head"], ["conv1", "conv2"]],
        maps=[part],
        **facts,  # type: ignore[arg-type]
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    pictures = {"saliency": np.linspace(-2, 1, 24).reshape(3, 2, 4), "image": np.eye(2)}
    file = write_randomization(tmp_path, record(), pictures)
    assert file.name == "p01_unet_1_top_down.json"
    (found,) = read_randomizations(tmp_path)
    assert found == record(pictures="p01_unet_1_top_down.npz")
    read = read_pictures(tmp_path, found)
    np.testing.assert_allclose(read["saliency"], pictures["saliency"] / 2, atol=1e-3)
    assert read["saliency"].dtype == np.float32


def test_undefined_similarities_are_nan(tmp_path: Path) -> None:
    write_randomization(tmp_path, record())
    (found,) = read_randomizations(tmp_path)
    table = similarities(found.maps[0], "spearman")
    assert table.shape == (2, 3)
    assert math.isnan(table[0, 1])
    assert table[1].tolist() == [1.0, 0.5, 0.75]
    assert read_pictures(tmp_path, found) == {}


def test_cases_that_differ_never_share_a_file(tmp_path: Path) -> None:
    for case in ("a/b", "a-b", "a b"):
        write_randomization(tmp_path, record(case))
    assert sorted(found.case for found in read_randomizations(tmp_path)) == ["a b", "a-b", "a/b"]


def test_a_picture_file_outside_of_the_run_is_not_opened(tmp_path: Path) -> None:
    write_randomization(tmp_path / "run", record())
    np.savez(tmp_path / "secret.npz", saliency=np.eye(2))
    moved = record(pictures="../../secret.npz")
    with pytest.raises(FileNotFoundError):
        read_pictures(tmp_path / "run", moved)
