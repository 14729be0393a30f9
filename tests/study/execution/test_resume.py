"""What a run may take over from an earlier one: only what is whole and of the same network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from tiny import NETWORK, TinyStudy, blob, save

from voxplain.errors import ConfigError, InputError, ModelError
from voxplain.records.manifest import Manifest
from voxplain.study import Run, Study, run_study
from voxplain.study.execution.store import Store
from voxplain.study.kept_study import study_of_run
from voxplain.study.reevaluate import evaluate_run

SCORED: dict[str, Any] = {"name": "net", "factory": "net.py:build"}


@pytest.fixture
def one(tiny: TinyStudy) -> TinyStudy:
    """One case and a network that is built by a file beside the study."""
    (tiny.folder / "net.py").write_text(NETWORK)
    tiny.write(cases=[{"id": "a", "image": "first.nii.gz"}], models=[SCORED], methods=["saliency"])
    return tiny


def go(tiny: TinyStudy, **changes: Any) -> Run:
    return run_study(Study.load(tiny.write(**changes)), trust=True)


def values(run: Run) -> np.ndarray:
    return nibabel.load(run.maps[0]).get_fdata()


@pytest.mark.parametrize("change", ["arguments", "factory", "code"])
def test_maps_of_another_network_are_not_served(one: TinyStudy, change: str) -> None:
    """Its weights are equal, its answer is twice as large."""
    twice = NETWORK.replace("return self.head(", "return self.factor * self.head(").replace(
        "    def forward", "    factor = 1\n\n    def forward"
    )
    more = "\n\ndef scaled(factor=1):\n    net = build()\n    net.factor = factor\n    return net\n"
    (one.folder / "net.py").write_text(twice + more)
    factory = "net.py:scaled" if change == "arguments" else "net.py:build"
    first = go(one, models=[{"name": "net", "factory": factory}])
    right = 2 * values(first)
    if change == "arguments":
        models = [{"name": "net", "factory": factory, "arguments": {"factor": 2}}]
    elif change == "factory":
        (one.folder / "net.py").write_text(
            twice + more + "\n\ndef twice():\n    return scaled(2)\n"
        )
        models = [{"name": "net", "factory": "net.py:twice"}]
    else:
        (one.folder / "net.py").write_text(twice.replace("factor = 1", "factor = 2") + more)
        models = one.config["models"]
    again = go(one, models=models)
    np.testing.assert_allclose(values(again), right, rtol=1e-5, atol=1e-6)
    facts = [run.manifest.models[0] for run in (first, again)]
    assert facts[0].weights_sha256 == facts[1].weights_sha256
    assert facts[0].fingerprint != facts[1].fingerprint


def test_an_evaluation_refuses_another_network_of_equal_weights(one: TinyStudy) -> None:
    run = go(one, metrics=[{"name": "deletion", "levels": 2}])
    code = NETWORK.replace("return self.head(", "return 2 * self.head(")
    (one.folder / "net.py").write_text(code)
    with pytest.raises(ModelError, match="answers otherwise"):
        evaluate_run(run.folder, Study.load(one.file), trust=True)


def test_models_of_equal_weights_each_have_their_records(one: TinyStudy) -> None:
    noisy = {"name": "smoothgrad", "of": "saliency", "samples": 2}
    run = go(one, models=[SCORED, {**SCORED, "name": "second"}], methods=[noisy])
    manifest = run.manifest
    for records in (manifest.maps, manifest.predictions, manifest.tasks):
        assert [record.model for record in records] == ["net", "second"]
    assert len({record.key for record in manifest.maps}) == 2
    first, second = (nibabel.load(path).get_fdata() for path in run.maps)
    np.testing.assert_array_equal(first, second)  # what it is called draws no other noise


@pytest.mark.parametrize("change", [{"name": "other"}, {"classes": ["none", "white matter", "c"]}])
def test_records_follow_the_names_of_a_study(one: TinyStudy, change: dict[str, Any]) -> None:
    metrics = [{"name": "deletion", "levels": 2}]
    go(one, metrics=metrics)
    run = go(one, metrics=metrics, models=[{**SCORED, **change}])
    assert run.exit_code == 0
    name = change.get("name", "net")
    assert {record.model for record in run.manifest.maps} == {name}
    assert {row.model for row in _scores(run)} == {name}
    sidecar = json.loads((run.folder / run.manifest.maps[0].sidecar).read_text())
    for text in (run.manifest.predictions[0].in_words, json.dumps(sidecar)):
        assert ("white matter" in text) == ("classes" in change)


def _scores(run: Run) -> Any:
    from voxplain.study.execution.store import Store

    return Store(run.folder).scores()


@pytest.mark.parametrize(
    "pattern",
    ["maps/**/*saliency*.nii.gz", "maps/**/*.json", "images/*_pred.*", "images/*_image.*"],
)
def test_a_truncated_file_is_written_again(one: TinyStudy, pattern: str) -> None:
    run = go(one)
    file = next(run.folder.glob(pattern))
    whole = file.read_bytes()
    for size in (len(whole) // 2, 0):
        file.write_bytes(whole[:size])
        again = go(one)
        assert again.exit_code == 0
        if file.suffix == ".gz":
            assert file.read_bytes() == whole
        assert len(file.read_bytes()) > len(whole) - 20
    assert len(again.manifest.maps) == 1


def test_a_corrected_reference_is_copied_again(one: TinyStudy) -> None:
    save(one.folder / "truth.nii.gz", (blob((6, 6, 5)) > 1).astype(np.uint8))
    cases = [{"id": "a", "image": "first.nii.gz", "reference": "truth.nii.gz"}]
    first = go(one, cases=cases)
    corrected = (blob((5, 6, 5)) > 1).astype(np.uint8)
    save(one.folder / "truth.nii.gz", corrected)
    run = go(one)
    copied = nibabel.load(run.folder / "images/a_ref.nii.gz").get_fdata()
    np.testing.assert_array_equal(copied, corrected)
    hashes = [each.manifest.cases[0].reference_sha256 for each in (first, run)]
    assert hashes[0] != hashes[1]
    assert first.manifest.maps == run.manifest.maps


def test_another_image_under_the_same_name_is_copied_again(one: TinyStudy) -> None:
    first = go(one)
    other = blob((8, 4, 6))
    save(one.folder / "first.nii.gz", other)
    run = go(one)
    copied = nibabel.load(run.folder / "images/a_image.nii.gz").get_fdata()
    np.testing.assert_allclose(copied, other, atol=2e-4)
    assert first.manifest.cases[0].image_sha256 != run.manifest.cases[0].image_sha256


def test_a_run_killed_before_its_manifest_is_taken_up(one: TinyStudy) -> None:
    study = (go(one).folder / "study.yaml").read_text()
    for name in ("study.yaml", ".DS_Store", ".lock", ".tmp-0123456789abcdef"):
        shutil.rmtree(one.run)
        one.run.mkdir()
        (one.run / name).write_text(study if name == "study.yaml" else "")
        assert go(one).exit_code == 0


def test_a_run_killed_before_its_manifest_loses_nothing_of_the_one_before(
    one: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is finished stands in the outcomes or in the manifest at every moment."""
    write, wanted = Store.write_manifest, [True, False, False]

    def killed(store: Store, manifest: Manifest) -> None:
        if wanted.pop(0):
            write(store, manifest)
        elif not wanted:
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "write_manifest", killed)
    go(one)  # its manifest is that of the beginning
    with pytest.raises(KeyboardInterrupt):
        go(one)
    monkeypatch.undo()
    lines = len((one.run / "events.jsonl").read_text().splitlines())
    go(one)
    new = (one.run / "events.jsonl").read_text().splitlines()[lines:]
    assert [json.loads(line)["event"] for line in new] == ["started", "finished"]


def test_a_study_that_a_person_wrote_is_not_taken_for_a_run(one: TinyStudy) -> None:
    one.run.mkdir()
    shutil.copy(one.file, one.run / "study.yaml")
    with pytest.raises(ConfigError, match="not a run of voxplain"):
        go(one)


def test_the_manifest_comes_first(one: TinyStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    from voxplain.study.execution import scheduler

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scheduler.Store, "write_study", killed)
    with pytest.raises(KeyboardInterrupt):
        go(one)
    assert [task.status for task in Manifest.read(one.run).tasks] == ["pending"]
    monkeypatch.undo()


def test_a_torn_event_does_not_take_the_next_one_with_it(one: TinyStudy) -> None:
    events = go(one).folder / "events.jsonl"
    count = len(events.read_text().splitlines())
    with events.open("a") as stream:
        stream.write('{"event": "task do')
    go(one)
    lines = events.read_text().splitlines()
    assert lines[count] == '{"event": "task do'
    assert all(json.loads(line)["event"] for line in (*lines[:count], *lines[count + 1 :]))


def test_the_events_name_a_task_before_it_runs(one: TinyStudy) -> None:
    events = [json.loads(line) for line in (go(one).folder / "events.jsonl").open()]
    assert [event["event"] for event in events] == [
        "started", "predicting", "task started", "task done", "finished",
    ]  # fmt: skip
    assert (events[2]["methods"], events[2]["case"], events[2]["model"]) == ("saliency", "a", "net")


LEAVES = """

class Leaves(Bright):
    calls = 0

    def forward(self, x):
        Leaves.calls += 1
        if Leaves.calls > 4:
            {}
        return super().forward(x)

def leaves():
    Leaves.calls = 0
    net = Leaves()
    net.load_state_dict(build().state_dict())
    return net
"""


@pytest.mark.parametrize("what", ["raise SystemExit(0)", "import os; os._exit(0)"])
def test_a_network_that_leaves_is_a_failed_task(one: TinyStudy, what: str) -> None:
    (one.folder / "net.py").write_text(NETWORK + LEAVES.format(what))
    hide = {"name": "occlusion", "window": 3, "stride": 3, "incremental": "off"}
    run = go(one, models=[{"name": "net", "factory": "net.py:leaves"}], methods=[hide])
    assert run.exit_code == 1
    assert "exit code 0" in str(run.failed[0].reason)


def test_a_run_with_tasks_to_do_is_not_done(one: TinyStudy) -> None:
    run = go(one)
    run.manifest.tasks[0].status = "pending"
    assert (run.failed, run.exit_code) == ([], 1)
    (run.folder / "manifest.json").write_text(run.manifest.model_dump_json())
    shutil.rmtree(run.folder / "tasks")
    page = run.write_report().read_text()
    assert "1 of 1 tasks are still to be done" in page
    assert "still to be done" not in go(one).write_report().read_text()


def test_old_records_are_read_and_computed_again(one: TinyStudy) -> None:
    """A manifest without hashes, as the first version wrote it."""
    run = go(one)
    file = run.folder / "manifest.json"
    old = json.loads(file.read_text())
    for part, names in {
        "cases": ("reference_sha256",),
        "models": ("definition", "fingerprint", "probe"),
    }.items():
        for record in old[part]:
            for name in names:
                del record[name]
    file.write_text(json.dumps(old))
    assert Run.load(run.folder).write_report().is_file()
    again = go(one)
    assert again.exit_code == 0
    assert again.manifest.models == run.manifest.models


@pytest.mark.parametrize("name", [".lock", "events.jsonl", "maps", "images"])
def test_nothing_is_written_through_a_link(one: TinyStudy, tmp_path: Path, name: str) -> None:
    run = go(one)
    place = run.folder / name
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    outside = tmp_path / "outside"
    outside.mkdir()
    place.symlink_to(outside if name in ("maps", "images") else outside / "file")
    with pytest.raises(InputError, match="symbolic link"):
        go(one)
    with pytest.raises(InputError, match="symbolic link"):
        run.write_report()
    assert not any(outside.iterdir())


def test_a_link_to_nothing_is_no_output(one: TinyStudy, tmp_path: Path) -> None:
    one.run.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="link to a place that does not exist"):
        go(one)


@pytest.mark.parametrize("content", [b"\xff\xfe\0", b"", b"[]", b"{"])
def test_a_damaged_manifest_is_a_sentence(one: TinyStudy, content: bytes) -> None:
    run = go(one)
    (run.folder / "manifest.json").write_bytes(content)
    with pytest.raises(ConfigError, match="damaged"):
        Run.load(run.folder)
    assert go(one).exit_code == 0


def test_names_of_classes_are_no_formulas(one: TinyStudy) -> None:
    run = go(one, models=[{**SCORED, "classes": ["ground", "loss $x^{$ y", "c_{"]}])
    assert "loss $x^{$ y" in run.write_report().read_text()


def test_paths_among_arguments_stay_at_home(one: TinyStudy) -> None:
    """They are in no file of the run, so that an evaluation asks for the study."""
    (one.folder / "net.py").write_text(NETWORK + "\n\ndef cached(cache=''):\n    return build()\n")
    arguments = {"cache": {"place": ["/home/DOE_JANE/cache"]}}
    run = go(one, models=[{**SCORED, "factory": "net.py:cached", "arguments": arguments}])
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    assert not [path for path in files if b"DOE_JANE" in path.read_bytes()]
    with pytest.raises(ConfigError, match="the run keeps no paths, and its factory takes one"):
        study_of_run(run.folder, {"factory": "net.py:cached"})
    with pytest.raises(ConfigError, match="the run keeps no file of its network"):
        study_of_run(run.folder, {})
