"""What must hold in the folder of a run that is killed at any moment."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from voxplain.records.outcome import outcomes, read_manifest
from voxplain.records.scores import Scores

KILLS = 20


def work(steps: int) -> dict[str, Any]:
    """Methods and metrics of a study that can be killed in many places.

    Args:
        steps: Of the methods; one of them has ten times less than another one.
    """
    paths = [
        {"name": "integrated_gradients", "steps": steps + number, "label": f"path{number}"}
        for number in range(6)
    ]
    smooth = {"name": "smoothgrad", "of": "saliency", "samples": max(2, steps // 2)}
    metrics = ["sparseness", {"name": "deletion", "levels": 8}]
    return {"methods": [*paths, smooth], "metrics": metrics}


def results(run: Path) -> dict[str, bytes]:
    """The maps, predictions and scores of a run by their names.

    Scores are without their passes: those that several share are counted with the first one, which
    depends on where a run was taken up.
    """
    found = {str(file.relative_to(run)): file.read_bytes() for file in run.rglob("*.nii.gz")}
    scores = [replace(row, passes=0) for row in Scores.read(run / "metrics.parquet")]
    return {**found, "scores": repr(scores).encode()}


def done(run: Path) -> dict[tuple[str, str], int]:
    """When each task that is done was finished: the time of its outcome, or of its prediction."""
    times = {
        (task.kind, task.key): file.stat().st_mtime_ns
        for file, task in ((file, outcome.task) for file, outcome in outcomes(run))
        if task.status == "done" and task.kind != "prediction"
    }
    predictions = read_manifest(run).predictions if (run / "manifest.json").exists() else []
    for record in predictions:
        times["prediction", record.key] = (run / str(record.image)).stat().st_mtime_ns
    return times


def require_kept(run: Path, before: dict[tuple[str, str], int]) -> None:
    """What was finished is there, and was not done again."""
    now = done(run)
    again = {task: now.get(task) for task, when in before.items() if now.get(task) != when}
    assert not again, f"not kept, or done again: {again}"


def require_whole_files(run: Path) -> None:
    """No reader ever sees a part of a file."""
    for file in run.rglob("*"):
        if file.name.startswith(".tmp-") or not file.is_file():
            continue
        if file.name.endswith(".nii.gz"):
            gzip.decompress(file.read_bytes())
        elif file.suffix == ".json":
            json.loads(file.read_text())
    if (run / "manifest.json").exists():
        read_manifest(run)
