"""Cascades in and out of a run directory."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from voxplain.records.cascades import (
    MapRandomized,
    MetricFollowed,
    RandomizationRecord,
    read_pictures,
    read_randomizations,
    scores_along,
    similarities,
    step_rows,
    write_randomization,
    write_steps,
)

GAP = MetricFollowed(
    key="morf_lerf_gap, levels 8", name="morf_lerf_gap", direction="up", minimum=-1, maximum=1
)
SCORES = {GAP.key: [[0.5, 0.25, None], [0.5, 0.125, 0.0]]}


def record(case: str = "p01", judged: bool = False, **facts: object) -> RandomizationRecord:
    curves = {"spearman": [[1.0, None, 0.25], [1.0, 0.5, 0.75]]}
    part = MapRandomized(method="saliency", similarity=curves, chance={"spearman": [None]})
    if judged:
        part.scores = SCORES
        facts["metrics"] = [GAP]
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


def test_scores_of_every_step_are_kept(tmp_path: Path) -> None:
    write_randomization(tmp_path, record(judged=True))
    (found,) = read_randomizations(tmp_path)
    assert found == record(judged=True)
    assert (found.schema_version, found.metrics) == (2, [GAP])
    np.testing.assert_array_equal(
        scores_along(found.maps[0], GAP.key), [[0.5, 0.25, math.nan], [0.5, 0.125, 0.0]]
    )
    assert scores_along(found.maps[0], "deletion").size == 0


def test_files_of_the_first_version_are_read(tmp_path: Path) -> None:
    file = write_randomization(tmp_path, record())
    old = json.loads(file.read_text())
    del old["metrics"], old["maps"][0]["scores"]
    file.write_text(json.dumps({**old, "schema_version": 1}))
    (found,) = read_randomizations(tmp_path)
    assert found == record(schema_version=1)
    assert found.maps[0].scores == {}


def test_the_table_has_a_row_per_map_seed_step_and_curve(tmp_path: Path) -> None:
    assert write_steps(tmp_path) is None
    write_randomization(tmp_path, record(judged=True))
    write_randomization(tmp_path, record("p02"))
    (tmp_path / "randomization" / "broken.json").write_text("{")
    file = write_steps(tmp_path)
    assert file == tmp_path / "randomization" / "steps.parquet"
    rows = parquet.read_table(file).to_pylist()
    assert len(rows) == 2 * 2 * 3 + 2 * 3
    assert {row["case"] for row in rows} == {"p01", "p02"}
    asked = {"case": "p01", "model": "unet", "target": "1", "order": "top_down", "unit": ""}
    assert asked | {
        "method": "saliency", "control": False, "seed": 1, "step": 2, "stages": "conv1, conv2",
        "kind": "metric", "measure": GAP.key, "value": 0.0, "direction": "up",
    } in rows  # fmt: skip
    (unknown,) = (row for row in rows if row["kind"] == "metric" and row["value"] is None)
    assert (unknown["seed"], unknown["step"]) == (0, 2)
    assert {row["direction"] for row in rows if row["kind"] == "similarity"} == {"down"}


def test_two_lines_of_pandas_give_the_curves(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    write_randomization(tmp_path, record(judged=True))
    table = pandas.read_parquet(write_steps(tmp_path)).query("measure == 'spearman'")
    curves = table.pivot_table(index="step", columns="method", values="value")
    assert curves["saliency"].tolist() == [1.0, 0.5, 0.5]


def test_the_table_goes_with_the_last_cascade(tmp_path: Path) -> None:
    file = write_randomization(tmp_path, record())
    table = write_steps(tmp_path)
    assert table is not None
    file.unlink()
    assert write_steps(tmp_path) is None
    assert not table.exists()


def test_a_control_is_a_control_in_the_table(tmp_path: Path) -> None:
    judged = record(judged=True)
    edges = judged.maps[0].model_copy(update={"method": "edges", "control": True})
    both = judged.model_copy(update={"maps": [*judged.maps, edges]})
    rows = list(step_rows(both))
    assert {(row["method"], row["control"]) for row in rows} == {
        ("saliency", False),
        ("edges", True),
    }
    assert {(row["kind"], row["direction"]) for row in rows} == {
        ("similarity", "down"),
        ("metric", GAP.direction),
    }
