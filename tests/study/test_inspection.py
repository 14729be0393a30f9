"""Questions to run directories: how far, what differs, what is left over, why again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from safetensors.torch import save_file
from tiny import TinyStudy, blob, save

from voxplain.errors import ConfigError
from voxplain.records.manifest import Manifest
from voxplain.records.outcome import outcomes
from voxplain.study import Run, Selection, Study, check_study, run_study
from voxplain.study.execution.store import Store
from voxplain.study.inspection.changes import reasons_to_run
from voxplain.study.inspection.clean import clean, left_over
from voxplain.study.inspection.compare import compare_runs
from voxplain.study.inspection.status import status_of

METRICS = ["sparseness"]


def go(tiny: TinyStudy, *, selection: Selection | None = None, **changes: Any) -> Run:
    return run_study(Study.load(tiny.write(**changes)), selection=selection)


def test_the_status_of_a_finished_run(tiny: TinyStudy) -> None:
    go(tiny, metrics=METRICS)
    status = status_of(tiny.run)
    assert status.counts == {"done": 6, "failed": 0, "pending": 0}
    assert (status.owner, status.at_work, status.left) == (None, {}, None)
    assert json.loads(json.dumps(status.to_json()))["running"] is False


def test_the_status_while_a_run_goes_on_names_its_tasks_and_the_time_left(
    tiny: TinyStudy,
) -> None:
    from voxplain.study.execution.progress import Silent

    seen: list[Any] = []

    class Looks(Silent):
        def finished(self, record: object, reused: bool) -> None:
            seen.append(status_of(tiny.run))

    run_study(Study.load(tiny.file), listener=Looks())
    counts = [status.counts["done"] for status in seen]
    assert counts == [1, 2, 3, 4]
    assert all("process" in str(status.owner) for status in seen)
    assert seen[0].left > 0
    assert seen[-1].left == 0
    assert status_of(tiny.run).owner is None


def test_failures_are_listed_by_their_reason(tiny: TinyStudy) -> None:
    slow = {"name": "smoothgrad", "of": "saliency", "samples": 1_000_000, "label": "slow"}
    run = go(tiny, methods=[slow, "saliency"], run={"timeout": 0.2, "max_passes": 10**6})
    assert run.exit_code == 1
    ((reason, tasks),) = status_of(tiny.run).failures.items()
    assert "time limit" in reason
    assert [task.case for task in tasks] == ["a", "b"]


def test_a_folder_without_a_run_has_no_status(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run directory"):
        status_of(tmp_path)


def test_the_manifest_of_an_unfinished_run_is_put_together(tiny: TinyStudy) -> None:
    run = go(tiny, metrics=METRICS)
    whole = run.manifest.model_copy(deep=True)
    begun = run.manifest
    for task in begun.tasks:
        task.status = "pending"
    begun.maps, begun.predictions, begun.seals = [], [], {}
    (tiny.run / "manifest.json").write_text(begun.model_dump_json())
    scores = (tiny.run / "metrics.parquet").read_bytes()
    (tiny.run / "metrics.parquet").unlink()
    found = Run.load(tiny.run)
    assert {task.status for task in found.manifest.tasks} == {"done"}
    assert {record.file for record in found.manifest.maps} == {m.file for m in whole.maps}
    assert len(found.manifest.predictions) == 2
    assert found.manifest.seals == whole.seals
    assert found.write_report().is_file()
    assert (tiny.run / "metrics.parquet").read_bytes() == scores


def test_only_what_was_chosen_is_done(tiny: TinyStudy) -> None:
    run = go(tiny, selection=Selection("a/*/*/sal*"))
    assert [(record.case, record.label) for record in run.manifest.maps] == [("a", "saliency")]
    assert run.exit_code == 0
    assert len(run.manifest.pending) == 3
    assert len(run.manifest.predictions) == 1
    run = go(tiny, selection=Selection("b"))
    assert [record.case for record in run.manifest.maps] == ["a", "b", "b"]
    assert go(tiny).exit_code == 0


def test_what_failed_is_tried_again_alone(tiny: TinyStudy) -> None:
    slow = {"name": "smoothgrad", "of": "saliency", "samples": 300, "label": "slow"}
    limit = {"timeout": 0.001}
    first = go(tiny, methods=[slow], run=limit, selection=Selection("a"))
    assert [task.case for task in first.failed] == ["a"]
    kept = go(tiny, run=limit, selection=Selection("b"))
    assert sorted(task.case for task in kept.failed) == ["a", "b"]
    assert "time limit" in str(kept.failed[0].reason)
    again = go(tiny, methods=[slow, "saliency"], run={"timeout": None},
               selection=Selection(only_failed=True))  # fmt: skip
    assert again.exit_code == 0
    assert [record.label for record in again.manifest.maps] == ["slow", "slow"]
    assert len(again.manifest.pending) == 2


def test_two_runs_are_compared_map_by_map(tiny: TinyStudy) -> None:
    go(tiny, output="one")
    go(
        tiny,
        output="two",
        methods=["saliency", {"name": "integrated_gradients", "steps": 9}, "lrp"],
    )
    one, two = tiny.folder / "one", tiny.folder / "two"
    found = {(each.case, each.label): each for each in compare_runs(one, two)}
    assert found["a", "saliency"].state == "same"
    assert found["a", "lrp"].state == "second"
    assert compare_runs(two, one)[2].state == "first"
    file = one / "maps/a/net/a_label-1_desc-saliency_attr.nii.gz"
    image = nibabel.load(file)
    nibabel.save(nibabel.Nifti1Image(-image.get_fdata(), image.affine), file)
    turned = compare_runs(one, two)[0]
    assert turned.state == "different"
    assert turned.cosine == pytest.approx(-1, abs=1e-6)
    assert turned.largest == pytest.approx(2, abs=1e-6)
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3)), image.affine), file)
    assert compare_runs(one, two)[0].state == "shape"


def test_cleaning_leaves_what_the_run_speaks_of(tiny: TinyStudy) -> None:
    run = go(tiny, metrics=METRICS, randomization={"steps": 1, "seeds": 1})
    run.write_report()
    assert left_over(tiny.run) == []
    notes = tiny.run / "notes.txt"
    notes.write_text("mine")
    run = go(tiny, methods=["saliency"], cases=tiny.config["cases"][:1])
    names = {str(file.relative_to(tiny.run)) for file in left_over(tiny.run)}
    assert "maps/a/net/a_label-1_desc-integrated_gradients_attr.nii.gz" in names
    assert "images/b_image.nii.gz" in names
    before = set(tiny.files(tiny.run))
    removed = {str(file.relative_to(tiny.run)) for file in clean(tiny.run)}
    assert removed == names
    assert set(tiny.files(tiny.run)) == before - names
    assert notes.exists()
    assert not (tiny.run / "maps/b").exists()
    assert {outcome.task.case for _, outcome in outcomes(tiny.run)} == {"a"}
    untouched = go(tiny)
    assert untouched.manifest.maps == run.manifest.maps


def test_a_plan_says_why_each_task_is_done_again(tiny: TinyStudy) -> None:
    def reasons(**changes: Any) -> set[str]:
        study = Study.load(tiny.write(**changes))
        return set(reasons_to_run(check_study(study), Store(study.folder)).values())

    assert reasons(metrics=METRICS) == {"new", "its maps are new"}
    go(tiny)
    assert reasons() == set()
    more = ["saliency", {"name": "integrated_gradients", "steps": 5}]
    assert reasons(methods=more) == {"changed: parameters", "its maps are new"}
    assert reasons(methods=["saliency", "lrp"]) == {"new", "its maps are new"}
    tiny.write(methods=["saliency", {"name": "integrated_gradients", "steps": 4}])
    assert reasons(metrics=["entropy"]) == {"changed: metrics, references or controls"}
    assert reasons(metrics=METRICS, run={"seed": 3}) == {"changed: seed", "its maps are new"}
    tiny.write(run={})
    (tiny.run / "maps/a/net/a_label-1_desc-saliency_attr.json").unlink()
    assert reasons() == {"its files are missing or damaged", "its maps are new"}
    go(tiny)
    save(tiny.folder / "first.nii.gz", blob((5, 5, 5)))
    assert reasons() == {"changed: image", "its maps are new"}
    go(tiny)
    import tiny_net

    state = {name: part * 2 for name, part in tiny_net.build().state_dict().items()}
    save_file(state, tiny.folder / "net.safetensors")
    (changed, _) = sorted(reasons())
    assert changed == "changed: weights, answer of the network"
    assert Manifest.read(tiny.run).pending == []
