"""Outcomes of tasks, and the manifest that is put together from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from voxplain.records.manifest import (
    AnalysisRecord,
    Manifest,
    MapRecord,
    PredictionRecord,
    TaskRecord,
)
from voxplain.records.outcome import TaskOutcome, prediction_task, read_manifest, seal

KEYS = {name: name * 64 for name in "abc"}


def task(key: str, **changes: Any) -> TaskRecord:
    facts: dict[str, Any] = {"case": "p01", "model": "net", "target": "1", "methods": ["saliency"]}
    return TaskRecord(key=KEYS[key], **(facts | changes))


def of_map(key: str) -> MapRecord:
    return MapRecord(
        case="p01",
        model="net",
        target="1",
        label="saliency",
        method="saliency",
        file=f"maps/p01/net/{key}.nii.gz",
        sidecar=f"maps/p01/net/{key}.json",
        key=KEYS[key],
    )


def analysis(key: str, folder: str) -> AnalysisRecord:
    name = "dissection"
    return AnalysisRecord(
        model="net", name=name, label=name, folder=folder, cases=["p01"], key=KEYS[key]
    )


def write(run: Path, **records: Any) -> None:
    manifest = Manifest(software={}, device="cpu", seed=0, study_sha256="", **records)
    (run / "manifest.json").write_text(manifest.model_dump_json())


def test_the_manifest_takes_what_tasks_of_its_plan_have_made(tmp_path: Path) -> None:
    write(tmp_path, tasks=[task("a"), task("b")])
    for key in "ac":  # the last one is of an earlier plan
        done = TaskOutcome(task=task(key, status="done"), maps=[of_map(key)], seals={key: "1"})
        done.write(tmp_path)
    found = read_manifest(tmp_path)
    assert [record.status for record in found.tasks] == ["done", "pending"]
    assert found.maps == [of_map("a")]
    assert found.seals == {"a": "1"}
    assert read_manifest(tmp_path) == found


def test_an_analysis_takes_the_place_of_the_one_before_in_its_folder(tmp_path: Path) -> None:
    before = [analysis("a", "analyses/net/dissection"), analysis("a", "analyses/net/other")]
    planned = task("b", kind="analysis", methods=["dissection"])
    write(tmp_path, tasks=[planned], analyses=before)
    new = analysis("b", "analyses/net/dissection")
    TaskOutcome(task=planned.model_copy(update={"status": "done"}), analyses=[new]).write(tmp_path)
    assert read_manifest(tmp_path).analyses == [before[1], new]


def test_a_seal_tells_other_content_of_the_same_length(tmp_path: Path) -> None:
    file = tmp_path / "map.nii.gz"
    seals = set()
    for content in (b"0123456789", b"0123456780", b"01234567890", b"", b"9"):
        file.write_bytes(content)
        seals.add(seal(file))
    assert len(seals) == 5


def test_a_prediction_is_listed_once(tmp_path: Path) -> None:
    def predicted(case: str, key: str) -> PredictionRecord:
        return PredictionRecord(
            case=case, model="net", target="1", in_words="a class", score=1.0, key=KEYS[key]
        )

    write(tmp_path, predictions=[predicted("p01", "a")])
    for case, key in (("p01", "a"), ("p02", "b")):
        planned = prediction_task(KEYS[key], case, "net", "1")
        TaskOutcome(task=planned, predictions=[predicted(case, key)]).write(tmp_path)
    found = read_manifest(tmp_path).predictions
    assert [record.case for record in found] == ["p01", "p02"]
