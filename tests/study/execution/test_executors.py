"""A task that travels: pickled, done in a process that has loaded nothing, and equal to the last
bit to one that was done here."""

from __future__ import annotations

import json
import pickle
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file
from spawned import SpawnedExecutor
from tiny import TinyStudy, blob, save

from voxplain.errors import InputError, ModelError, VoxplainWarning
from voxplain.io import read_image
from voxplain.records.manifest import Manifest
from voxplain.records.scores import Scores
from voxplain.study import CheckedStudy, Study, check_study, run_study
from voxplain.study.execution.execute import execute
from voxplain.study.execution.executors import Executor
from voxplain.study.execution.executors.in_process import InProcessExecutor
from voxplain.study.execution.progress import OfWorker, Silent
from voxplain.study.execution.queue import TaskQueue
from voxplain.study.execution.resources import CombinationSpec, LoadedResources
from voxplain.study.execution.scheduler import Scheduler
from voxplain.study.execution.specs.evaluation import EvaluationSpec
from voxplain.study.execution.specs.explanation import ExplanationSpec
from voxplain.study.execution.specs.prediction import PredictionSpec
from voxplain.study.execution.specs.result import TaskResult
from voxplain.study.execution.specs.spec import TaskSpec
from voxplain.study.execution.store import Store
from voxplain.study.planning import networks


def write_full(tiny: TinyStudy) -> Study:
    """Two cases, two networks, references, metrics of every kind of need, and a cascade."""
    import tiny_net  # type: ignore[import-not-found]

    state = {name: part * 1.5 for name, part in tiny_net.build().state_dict().items()}
    save_file(state, tiny.folder / "twin.safetensors")
    save(tiny.folder / "third.nii.gz", blob((4, 7, 3)))
    save(tiny.folder / "mask.nii.gz", (blob((6, 6, 5)) > 1).astype(np.uint8))
    first, second = tiny.config["cases"]
    (net,) = tiny.config["models"]
    net = {**net, "preprocess": [{"kind": "pad_to_multiple", "multiple": 4}]}
    return Study.load(
        tiny.write(
            cases=[{**first, "reference": "mask.nii.gz"}, {**second, "patient": "two"}],
            models=[net, {**net, "name": "twin", "weights": "twin.safetensors"}],
            methods=[
                "saliency",
                {"name": "smoothgrad", "of": "saliency", "samples": 3},
                {"name": "expected_gradients", "samples": 4},
                {"name": "occlusion", "window": 6, "stride": 6},
                {"name": "layer_activation", "layers": ["features"]},
            ],
            references=["b", "first.nii.gz", "third.nii.gz"],
            metrics=["sparseness", {"name": "deletion", "levels": 3}, "roc_auc", "seed_agreement"],
            randomization={"steps": 2, "seeds": 1, "methods": ["saliency"]},
        )
    )


def run_by(executor: Executor, checked: CheckedStudy, folder: Path) -> None:
    Scheduler(checked, Store(folder), Silent(), True).run(executor)


_TIMED = ("seconds", "seals", "left")  # seals are of sidecars, which hold times


def without_times(content: Any) -> Any:
    """JSON without what differs from run to run."""
    if isinstance(content, dict):
        kept = {name: value for name, value in content.items() if name.lower() not in _TIMED}
        return {name: without_times(value) for name, value in kept.items()}
    if isinstance(content, list):
        return [without_times(value) for value in content]
    return content


def test_every_task_of_a_study_can_be_done_by_another_process(tiny: TinyStudy) -> None:
    checked = check_study(write_full(tiny))
    here, there = tiny.folder / "here", tiny.folder / "there"
    resources = LoadedResources.of(checked)
    run_by(InProcessExecutor(resources, OfWorker()), checked, here)
    executor = SpawnedExecutor()
    run_by(executor, checked, there)
    kinds = [type(pickle.loads(sent)) for sent in executor.sent]
    assert kinds.count(PredictionSpec) == kinds.count(EvaluationSpec) == 4
    assert kinds.count(ExplanationSpec) == len(checked.plan.tasks)
    assert max(map(len, executor.sent)) < 50_000  # descriptions, and no voxels or weights
    assert {record.status for record in Manifest.read(there).tasks} == {"done"}
    files = set(tiny.files(here))
    assert files == set(tiny.files(there))
    for name in files:
        one, other = (here / name).read_bytes(), (there / name).read_bytes()
        if name.endswith(".json"):
            assert without_times(json.loads(one)) == without_times(json.loads(other)), name
        elif name.endswith(".jsonl"):
            lines = [[json.loads(line) for line in text.splitlines()] for text in (one, other)]
            assert without_times(lines[0]) == without_times(lines[1])
        else:
            assert one == other, name
    maps = [name for name in files if name.startswith("maps/") and name.endswith(".nii.gz")]
    assert len(maps) == 2 * 2 * 5
    assert len(Scores.read(there / "metrics.parquet")) > 100


def common(tiny: TinyStudy, **changes: Any) -> tuple[CheckedStudy, CombinationSpec]:
    checked = check_study(Study.load(tiny.write(**changes)))
    return checked, CombinationSpec.of(checked, checked.combinations[0], tiny.run)


def explanation(checked: CheckedStudy, shared: CombinationSpec) -> TaskSpec:
    return ExplanationSpec(common=shared, task=checked.plan.tasks[0])


def test_a_process_loads_a_network_and_an_image_once_for_consecutive_tasks(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked, shared = common(tiny)
    loaded: list[str] = []
    original = networks.open_network

    def load(config: Any, **named: Any) -> Any:
        loaded.append(config.name)
        return original(config, **named)

    monkeypatch.setattr(networks, "open_network", load)
    resources = LoadedResources()
    for task in checked.plan.tasks_of(checked.combinations[0]):
        assert not execute(ExplanationSpec(common=shared, task=task), resources).reason
    image = resources.image(shared.image)
    assert loaded == ["net"]
    assert resources.image(shared.image) is image
    other = replace(shared, image=checked.image_source("b"))
    assert resources.image(other.image) is not image


def test_a_process_keeps_the_networks_of_one_combination(tiny: TinyStudy) -> None:
    net = tiny.config["models"][0]
    models = [{**net, "name": name, "preprocess": [{"kind": "pad_to_multiple", "multiple": size}]}
              for name, size in (("one", 2), ("two", 4))]  # fmt: skip
    checked, _ = common(tiny, models=models)
    resources = LoadedResources()
    for combination in checked.combinations[:2]:
        resources.network(CombinationSpec.of(checked, combination, tiny.run))
    assert [source.config.name for source, _ in resources.networks] == ["two"]


def test_a_network_that_changed_after_the_check_is_refused(tiny: TinyStudy) -> None:
    checked, shared = common(tiny)
    import tiny_net

    state = {name: part * 2 for name, part in tiny_net.build().state_dict().items()}
    save_file(state, tiny.folder / "net.safetensors")
    with pytest.raises(ModelError, match="model net: its weights_sha256 changed after the study"):
        LoadedResources().network(shared)
    result = execute(explanation(checked, shared), LoadedResources())
    assert "changed after the study was checked" in result.reason
    assert result.maps == ()


def test_an_image_that_changed_after_the_check_is_refused(tiny: TinyStudy) -> None:
    _, shared = common(tiny)
    assert np.array_equal(
        LoadedResources().image(shared.image).data, read_image(tiny.folder / "first.nii.gz").data
    )
    save(tiny.folder / "first.nii.gz", blob((5, 5, 5)))
    with pytest.raises(InputError, match="case a: the image has changed"):
        LoadedResources().image(shared.image)


def test_a_reason_names_no_file_wherever_it_comes_from(tiny: TinyStudy) -> None:
    checked, shared = common(tiny)
    (tiny.folder / "first.nii.gz").unlink()
    result = execute(explanation(checked, shared), LoadedResources())
    assert result.reason.startswith("case a: ")
    assert "first" not in result.reason
    assert str(tiny.folder) not in result.reason


def test_the_time_limit_is_the_executors_and_says_where_there_is_none(tiny: TinyStudy) -> None:
    checked, shared = common(tiny, run={"timeout": "1h"})
    resources = LoadedResources.of(checked)
    executor = InProcessExecutor(resources, OfWorker())

    def run() -> list[TaskResult]:
        queue = TaskQueue([explanation(checked, shared)], [0.0])
        return list(executor.run(queue, lambda spec, worker: None))

    (in_main,) = run()
    assert in_main.warnings == ()
    results: list[TaskResult] = []
    thread = threading.Thread(target=lambda: results.extend(run()))
    thread.start()
    thread.join()
    assert results[0].maps
    assert "needs the main thread" in " ".join(results[0].warnings)


def test_two_networks_of_equal_weights_have_maps_and_records_of_their_own(
    tiny: TinyStudy,
) -> None:
    net = tiny.config["models"][0]
    file = tiny.write(models=[net, {**net, "name": "again"}], cases=tiny.config["cases"][:1])
    run = run_study(Study.load(file))
    assert [record.model for record in run.manifest.maps] == ["net"] * 2 + ["again"] * 2
    assert [record.model for record in run.manifest.predictions] == ["net", "again"]
    assert [record.model for record in run.manifest.tasks] == ["net"] * 2 + ["again"] * 2
    assert len(set(run.maps)) == 4
    before = {path: path.stat().st_mtime_ns for path in run.maps}
    second = run_study(Study.load(file))
    assert {path: path.stat().st_mtime_ns for path in second.maps} == before
    assert second.manifest.maps == run.manifest.maps


def test_warnings_of_a_prediction_are_given(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They belong to no task of the manifest."""
    import warnings

    from voxplain.study.execution import resources as loaded

    original = loaded.predict_case

    def predict(*arguments: Any) -> Any:
        warnings.warn("doubtful", VoxplainWarning, stacklevel=1)
        return original(*arguments)

    monkeypatch.setattr(loaded, "predict_case", predict)
    with pytest.warns(VoxplainWarning, match="doubtful"):
        run_study(Study.load(tiny.file))
