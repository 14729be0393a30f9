"""The files of a run, resumed runs, and failures."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import yaml
from tiny import AFFINE, SHAPE, TinyStudy, blob, save

from voxplain.attribution import explain
from voxplain.attribution.explanation import explain_in
from voxplain.errors import ConfigError, VoxplainError
from voxplain.io import read_image
from voxplain.records.manifest import Manifest, TaskRecord
from voxplain.records.outcome import read_manifest
from voxplain.study import Run, Study, Task, check_study, run_study
from voxplain.study.execution.progress import Silent
from voxplain.study.execution.selection import Selection


class Recorder(Silent):
    """Records all callbacks."""

    def __init__(self) -> None:
        self.computed: list[str] = []
        self.reused: list[str] = []
        self.ticks: list[tuple[int, int]] = []
        self.logs: list[str] = []

    def passed(self, done: int, planned: int, worker: int) -> None:
        self.ticks.append((done, planned))

    def failed(self, log: str) -> None:
        self.logs.append(log)

    def finished(self, record: TaskRecord, reused: bool) -> None:
        where = self.reused if reused else self.computed
        where.append(f"{record.case} {','.join(record.methods)}")


def go(tiny: TinyStudy, **changes: Any) -> tuple[Run, Recorder]:
    recorder = Recorder()
    return run_study(Study.load(tiny.write(**changes)), listener=recorder), recorder


def test_a_run_leaves_every_file_and_a_manifest_of_them(tiny: TinyStudy) -> None:
    run, recorder = go(tiny)
    assert run.exit_code == 0
    assert len(recorder.computed) == 4
    stems = [f"{case}_label-1_desc-{name}_attr" for case in "ab"
             for name in ("saliency", "integrated_gradients")]  # fmt: skip
    expected = {
        *(f"maps/{stem[0]}/net/{stem}.{ending}" for stem in stems for ending in ("nii.gz", "json")),
        *(f"images/{case}_{kind}.nii.gz" for case in "ab" for kind in ("image", "net_pred")),
        *("study.yaml", "manifest.json", "dataset_description.json", "events.jsonl", ".lock"),
    }  # fmt: skip
    files = set(tiny.files(run.folder))
    assert {name for name in files if not name.startswith("tasks/")} == expected
    tasks = [name for name in files if name.startswith("tasks/")]
    assert sum("_maps-" in name for name in tasks) == 4
    assert sum("_prediction-" in name for name in tasks) == 2
    assert len(tasks) == 6
    manifest = Manifest.read(run.folder)
    assert {record.status for record in manifest.tasks} == {"done"}
    assert {run.folder / record.file for record in manifest.maps} == set(run.maps)
    assert [record.id for record in manifest.cases] == ["a", "b"]
    assert manifest.cases[0].shape == SHAPE
    assert manifest.predictions[0].volumes


def test_a_map_is_what_the_engine_gives_and_lies_on_the_scan(tiny: TinyStudy) -> None:
    import tiny_net

    run, _ = go(tiny)
    written = nibabel.load(run.folder / "maps/a/net/a_label-1_desc-saliency_attr.nii.gz")
    image = read_image(tiny.folder / "first.nii.gz")
    target = {"kind": "pixelwise", "label": 1}
    maps = explain(tiny_net.build().eval(), image, ["saliency"], target)
    np.testing.assert_allclose(written.get_fdata(), maps["saliency"].to_numpy()[0], rtol=1e-6)
    np.testing.assert_allclose(written.affine, AFFINE, atol=1e-6)
    copy = nibabel.load(run.folder / "images/a_image.nii.gz").get_fdata()
    np.testing.assert_allclose(copy, blob((6, 6, 5)), atol=2e-3)


def test_the_same_run_twice_gives_the_same_bytes(tiny: TinyStudy) -> None:
    methods = [{"name": "smoothgrad", "of": "saliency", "samples": 3}, "saliency"]
    first, _ = go(tiny, methods=methods, output="one")
    second, _ = go(tiny, methods=methods, output="two")
    for here, there in zip(first.maps, second.maps, strict=True):
        assert here.read_bytes() == there.read_bytes()


def test_a_second_run_computes_nothing(tiny: TinyStudy) -> None:
    first, _ = go(tiny)
    before = {path: path.stat().st_mtime_ns for path in first.maps}
    second, recorder = go(tiny)
    assert recorder.computed == []
    assert len(recorder.reused) == 4
    assert before == {path: path.stat().st_mtime_ns for path in second.maps}
    assert second.manifest.predictions == first.manifest.predictions
    again = Recorder()
    assert run_study(Study.load(tiny.file), resume=False, listener=again).exit_code == 0
    assert len(again.computed) == 4


@pytest.mark.parametrize("ending", [".nii.gz", ".json"])
def test_only_what_is_missing_is_computed_again(tiny: TinyStudy, ending: str) -> None:
    run, _ = go(tiny)
    (run.folder / f"maps/b/net/b_label-1_desc-saliency_attr{ending}").unlink()
    again, recorder = go(tiny)
    assert recorder.computed == ["b saliency"]
    assert all(path.is_file() for path in again.maps)
    assert len(again.maps) == 4


@pytest.mark.parametrize(
    ("changes", "computed"),
    [
        ({"methods": ["saliency", {"name": "integrated_gradients", "steps": 5}]}, "integrated"),
        ({"methods": ["saliency", {"name": "integrated_gradients", "steps": 4}, "deconvolution"]},
         "deconvolution"),
    ],
)  # fmt: skip
def test_a_changed_method_leaves_the_others(
    tiny: TinyStudy, changes: dict[str, Any], computed: str
) -> None:
    go(tiny)
    _, recorder = go(tiny, **changes)
    assert len(recorder.computed) == 2
    assert all(computed in words for words in recorder.computed)


@pytest.mark.parametrize(
    "changes",
    [
        {"target": {"kind": "volume", "label": 1}},
        {"run": {"seed": 1}},
        {"models": [{"name": "net", "factory": "tiny_net:build"}]},
        {"models": [{"name": "net", "factory": "tiny_net:build", "weights": "net.safetensors",
                     "preprocess": [{"kind": "normalize", "mode": "minmax"}]}]},
    ],
)  # fmt: skip
def test_what_determines_a_result_makes_it_new(tiny: TinyStudy, changes: dict[str, Any]) -> None:
    go(tiny)
    _, recorder = go(tiny, **changes)
    same_weights = "models" in changes and "preprocess" not in changes["models"][0]
    assert len(recorder.computed) == (0 if same_weights else 4)


def test_changed_voxels_make_a_case_new_and_a_moved_file_does_not(tiny: TinyStudy) -> None:
    go(tiny)
    (tiny.folder / "first.nii.gz").rename(tiny.folder / "moved.nii.gz")
    cases = [{"id": "a", "image": "moved.nii.gz"}, {"id": "b", "image": "second.nii.gz"}]
    _, recorder = go(tiny, cases=cases)
    assert recorder.computed == []
    save(tiny.folder / "moved.nii.gz", blob((5, 5, 5)))
    _, recorder = go(tiny)
    assert {words[0] for words in recorder.computed} == {"a"}


def test_a_case_that_fails_leaves_the_others(tiny: TinyStudy) -> None:
    save(tiny.folder / "dark.nii.gz", 0 * blob((1, 1, 1)))
    cases = [{"id": "dark", "image": "dark.nii.gz"}, {"id": "a", "image": "first.nii.gz"}]
    run, recorder = go(tiny, cases=cases)
    assert run.exit_code == 1
    assert {record.case for record in run.failed} == {"dark"}
    assert all("predicted nowhere" in str(record.reason) for record in run.failed)
    assert len([record for record in run.manifest.tasks if record.status == "done"]) == 2
    assert len(run.maps) == 2
    assert recorder.logs
    events = [json.loads(line) for line in (run.folder / "events.jsonl").open()]
    assert [event["event"] for event in events].count("task failed") == len(run.failed)


def test_a_task_over_its_time_is_recorded_and_the_rest_goes_on(tiny: TinyStudy) -> None:
    slow = {"name": "smoothgrad", "of": "saliency", "samples": 1_000_000, "label": "slow"}
    run, _ = go(tiny, cases=tiny.config["cases"][:1], methods=[slow, "saliency"],
                run={"timeout": 0.3, "max_passes": 10**6})  # fmt: skip
    assert [record.methods for record in run.failed] == [["slow"]]
    assert "time limit of 0.3 s" in str(run.failed[0].reason)
    assert [path.name for path in run.maps] == ["a_label-1_desc-saliency_attr.nii.gz"]


def test_running_out_of_memory_is_a_reason_not_an_end(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from voxplain.study.execution.specs import explanation

    def hungry(context: Any, methods: list[Any], *rest: Any, **named: Any) -> Any:
        if methods[0].key == "saliency":
            raise MemoryError
        return explain_in(context, methods, *rest, **named)

    monkeypatch.setattr(explanation, "explain_in", hungry)
    run, _ = go(tiny)
    assert [record.methods for record in run.failed] == [["saliency"], ["saliency"]]
    assert "out of memory" in str(run.failed[0].reason)
    assert len(run.maps) == 2


@pytest.mark.parametrize("only_failed", [False, True])
def test_maps_that_failed_at_first_are_scored_with_the_others(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch, only_failed: bool
) -> None:
    from voxplain.records.scores import Scores
    from voxplain.study.execution.specs import explanation

    def hungry(context: Any, methods: list[Any], *rest: Any, **named: Any) -> Any:
        if methods[0].key == "saliency":
            raise MemoryError
        return explain_in(context, methods, *rest, **named)

    study = Study.load(tiny.write(metrics=["sparseness"], run={"controls": False}))
    with monkeypatch.context() as patch:
        patch.setattr(explanation, "explain_in", hungry)
        assert run_study(study).exit_code == 1
    run = run_study(study, selection=Selection(only_failed=only_failed))
    assert run.exit_code == 0
    rows = Scores.read(run.folder / "metrics.parquet")
    methods = [(row.case, row.method) for row in rows]
    names = ("saliency", "integrated_gradients")
    assert sorted(methods) == sorted((case, name) for case in "ab" for name in names)


def test_foreign_errors_are_named_by_their_type_only(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from voxplain.study.execution.specs import explanation

    def broken(*_: Any, **__: Any) -> Any:
        raise KeyError("/data/SMITH/secret.nii")

    monkeypatch.setattr(explanation, "explain_in", broken)
    run, recorder = go(tiny)
    assert len(run.failed) == 4
    assert "SMITH" not in (run.folder / "manifest.json").read_text()
    assert "SMITH" not in (run.folder / "events.jsonl").read_text()
    assert "SMITH" in recorder.logs[0]


def test_a_stopped_run_is_taken_up_where_it_was(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stops(Recorder):
        def finished(self, record: TaskRecord, reused: bool) -> None:
            super().finished(record, reused)
            if len(self.computed) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(Study.load(tiny.file), listener=Stops())
    states = [record.status for record in read_manifest(tiny.run).tasks]
    assert sorted(states) == ["done", "done", "done", "pending"]
    _, recorder = go(tiny)
    assert (len(recorder.reused), len(recorder.computed)) == (3, 1)


def test_a_killed_run_leaves_no_half_file_and_is_taken_up(tiny: TinyStudy) -> None:
    tiny.write(methods=[{"name": "integrated_gradients", "steps": steps, "label": f"ig{steps}"}
                        for steps in range(30, 42)], run={"workers": 0})  # fmt: skip
    code = f"import voxplain.study as s; s.run_study(s.Study.load({str(tiny.file)!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], env=tiny.environment)
    while not (tiny.run / "maps").is_dir():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for file in tiny.run.rglob("*.nii.gz"):
        gzip.decompress(file.read_bytes())
    killed = read_manifest(tiny.run)
    run, recorder = go(tiny)
    assert run.exit_code == 0
    assert len(recorder.reused) == sum(record.status == "done" for record in killed.tasks)
    assert len(run.maps) == 24
    assert not list(tiny.run.rglob(".tmp*"))


def test_half_written_files_are_swept_away(tiny: TinyStudy) -> None:
    run, _ = go(tiny)
    left = run.folder / "maps/a/net/.tmp-0123456789abcdef"
    left.write_bytes(b"half")
    go(tiny)
    assert not left.exists()


def test_what_a_folder_already_holds_is_not_mixed_with_a_run(tiny: TinyStudy) -> None:
    tiny.run.mkdir()
    (tiny.run / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not a run of voxplain"):
        go(tiny)
    assert os.listdir(tiny.run) == ["thesis.txt"]


def test_two_processes_cannot_write_one_run(tiny: TinyStudy) -> None:
    from voxplain.study.execution.store import Store

    with Store(tiny.run).locked(), pytest.raises(ConfigError, match="another process"):
        go(tiny)


def test_a_run_folder_names_no_source(tiny: TinyStudy) -> None:
    marker = "SMITHJOHN19700101"
    hidden = tiny.folder / marker
    hidden.mkdir()
    image = nibabel.Nifti1Image(blob((6, 6, 5)), AFFINE)
    for name in ("descrip", "aux_file", "db_name", "intent_name"):
        image.header[name] = marker[: image.header[name].dtype.itemsize]
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", marker.encode()))
    nibabel.save(image, hidden / f"{marker}.nii.gz")
    save(hidden / f"{marker}_ref.nii.gz", (blob((6, 6, 5)) > 1).astype(np.uint8))
    (tiny.folder / "net.safetensors").rename(hidden / f"{marker}.safetensors")
    run, _ = go(
        tiny,
        cases=[{"image": f"{marker}/*{marker[5:]}.nii.gz",
                "reference": f"{marker}/{marker}_ref.nii.gz"}],
        models=[{"name": "net", "factory": "tiny_net:build",
                 "weights": f"{marker}/{marker}.safetensors"}],
        references=[f"{marker}/{marker}.nii.gz"],
    )  # fmt: skip
    assert run.exit_code == 0
    for name in tiny.files(run.folder):
        content = (run.folder / name).read_bytes()
        content = gzip.decompress(content) if name.endswith(".gz") else content
        assert marker[:6] not in name
        assert marker[:6].encode() not in content, name
        assert str(tiny.folder).encode() not in content, name


def test_the_resolved_study_says_every_parameter(tiny: TinyStudy) -> None:
    run, _ = go(tiny)
    resolved = yaml.safe_load((run.folder / "study.yaml").read_text())
    assert resolved["methods"][1]["quadrature"] == "gauss_legendre"
    assert resolved["models"][0]["weights_sha256"] == run.manifest.models[0].weights_sha256
    assert "image" not in resolved["cases"][0]
    assert resolved["run"]["seed"] == 0


def test_draws_do_not_depend_on_the_other_methods(tiny: TinyStudy) -> None:
    noisy = {"name": "smoothgrad", "of": "saliency", "samples": 3}
    alone, _ = go(tiny, methods=[noisy], output="alone")
    varying = {"name": "vargrad", "of": "saliency", "samples": 3}
    among, _ = go(tiny, methods=["saliency", noisy, varying], output="among")
    name = "maps/a/net/a_label-1_desc-smoothgrad_saliency_attr.nii.gz"
    first, second = (nibabel.load(run.folder / name).get_fdata() for run in (alone, among))
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6 * np.abs(first).max())


def test_tasks_share_streams_and_count_passes(tiny: TinyStudy) -> None:
    changes = tiny.write(methods=["saliency", "input_x_gradient", "guided_backprop",
                                  {"name": "integrated_gradients", "steps": 6}])  # fmt: skip
    plan = check_study(Study.load(changes)).plan
    per_case: list[Task] = [task for task in plan.tasks if task.combination.case == "a"]
    assert [task.labels for task in per_case] == [
        ["saliency", "input_x_gradient"],
        ["guided_backprop"],
        ["integrated_gradients"],
    ]
    assert [task.passes for task in per_case] == [1, 1, 6]
    assert len({task.key for task in plan.tasks}) == 6


def test_progress_counts_every_pass(tiny: TinyStudy) -> None:
    _, recorder = go(tiny, methods=[{"name": "integrated_gradients", "steps": 6}])
    assert recorder.ticks[-1] == (6, 6)


def test_several_targets_and_references_have_their_own_files(tiny: TinyStudy) -> None:
    save(tiny.folder / "truth.nii.gz", (blob((6, 6, 5)) > 1).astype(np.uint8))
    cases = [{"id": "a", "image": "first.nii.gz", "reference": "truth.nii.gz"}]
    targets = [{"kind": "pixelwise", "label": 1}, {"kind": "region", "label": 1, "component": 1}]
    tiny.config.pop("target")
    run, _ = go(tiny, cases=cases, targets=targets, methods=["saliency"])
    assert len(set(run.maps)) == 2
    assert run.manifest.cases[0].reference == "images/a_ref.nii.gz"
    assert nibabel.load(run.folder / "images/a_ref.nii.gz").get_fdata().max() == 1


def test_a_damaged_manifest_is_refused_and_replaced(tiny: TinyStudy) -> None:
    run, _ = go(tiny)
    (run.folder / "manifest.json").write_text("{")
    with pytest.raises(VoxplainError, match="damaged"):
        Run.load(run.folder)
    _, recorder = go(tiny)
    assert len(recorder.computed) == 4


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run directory"):
        Run.load(tmp_path)


def test_a_study_run_from_python_leaves_its_report(tiny: TinyStudy) -> None:
    run = Study.load(tiny.write(methods=["saliency"])).run()
    assert (run.folder / "report.html").stat().st_size > 10_000
    assert run.write_report(share=True).name == "report-share.html"
