"""Metrics and randomization in a study: the table, resumed runs, failures."""

from __future__ import annotations

import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from tiny import AFFINE, SHAPE, TinyStudy, blob

from voxplain.attribution import explain
from voxplain.errors import ConfigError, VoxplainWarning
from voxplain.io import read_image
from voxplain.metrics import MapField, MapScorer, PendingScore, evaluate
from voxplain.records.cascades import read_pictures, read_randomizations
from voxplain.records.manifest import TaskRecord
from voxplain.records.scores import Scores
from voxplain.study import Run, Study, check_study, run_study
from voxplain.study.execution.progress import Silent
from voxplain.study.kept_study import study_of_run
from voxplain.study.reevaluate import evaluate_run, reevaluation_of

METRICS: list[Any] = ["sparseness", {"name": "deletion", "levels": 4}, "roc_auc"]
CONTROLS = {"random", "edges", "intensity", "center"}


class Recorder(Silent):
    """Records which tasks were done, and which were kept."""

    def __init__(self) -> None:
        self.computed: list[str] = []
        self.reused: list[str] = []
        self.logs: list[str] = []

    def failed(self, log: str) -> None:
        self.logs.append(log)

    def finished(self, record: TaskRecord, reused: bool) -> None:
        where = self.reused if reused else self.computed
        where.append(f"{record.case} {','.join(record.methods)}")


def go(tiny: TinyStudy, **changes: Any) -> tuple[Run, Recorder]:
    recorder = Recorder()
    return run_study(Study.load(tiny.write(**changes)), listener=recorder), recorder


def table(run: Run) -> Scores:
    return Scores.read(run.folder / "metrics.parquet")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """Every score that was computed: case, metric, map."""
    scored = []
    original = MapScorer.score

    def score(self: MapScorer, pending: PendingScore) -> Any:
        scored.append((self.context.case.id, pending.metric.name, pending.method))
        return original(self, pending)

    monkeypatch.setattr(MapScorer, "score", score)
    return scored


def with_reference(tiny: TinyStudy) -> list[dict[str, Any]]:
    """The cases, the first with a mask of its bright ball."""
    mask = (blob((6, 6, 5)) > 1).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(mask, AFFINE), tiny.folder / "mask.nii.gz")
    first, second = tiny.config["cases"]
    return [{**first, "reference": "mask.nii.gz"}, second]


def test_the_plan_counts_the_reference_as_a_map_where_there_is_one(tiny: TinyStudy) -> None:
    metrics = [{"name": "deletion", "levels": 4}]
    study = Study.load(tiny.write(metrics=metrics, cases=with_reference(tiny)))
    streams = {task.combination.case: task.streams for task in check_study(study).plan.evaluations}
    maps = 2 + len(CONTROLS)
    assert f"5 forwards for each of {maps + 1} maps" in streams["a"]
    assert f"5 forwards for each of {maps} maps" in streams["b"]


def test_the_table_has_a_row_per_case_map_control_and_metric(tiny: TinyStudy) -> None:
    run, recorder = go(tiny, metrics=METRICS, cases=with_reference(tiny))
    assert run.exit_code == 0, [task.reason for task in run.failed]
    rows = table(run)
    maps = {"saliency", "integrated_gradients"}
    for case, controls in (("a", CONTROLS | {"reference"}), ("b", CONTROLS)):
        for metric in ("sparseness", "deletion", "roc_auc"):
            scores = rows.of(case=case, metric=metric)
            assert {row.method for row in scores} == maps | controls
            assert {row.method for row in scores if row.control} == controls
            assert len(scores) == len(maps | controls)
    assert {(row.model, row.target, row.seed) for row in rows} == {("net", "1", 0)}
    assert {row.direction for row in rows.of(metric="deletion")} == {"down"}
    assert all(row.parameters["levels"] == 4 for row in rows.of(metric="deletion"))
    assert rows.of(case="a", metric="roc_auc", method="reference").values() == [1.0]
    without = rows.of(case="b", metric="roc_auc")
    assert all(math.isnan(row.value) and "reference" in row.reason for row in without)
    assert "a sparseness,deletion,roc_auc" in recorder.computed
    assert [task.kind for task in run.manifest.tasks].count("metrics") == 2


def test_the_maps_are_scored_as_they_were_written(tiny: TinyStudy) -> None:
    """On a turned grid, so that maps travel from the files back to the network."""
    import tiny_net

    steps = [{"kind": "reorient", "axes": "RAS"}, {"kind": "pad_to_multiple", "multiple": 8}]
    model = {**tiny.config["models"][0], "preprocess": steps}
    run, _ = go(tiny, metrics=METRICS[:2], models=[model], run={"controls": False})
    (config,) = Study.load(tiny.file).models
    from voxplain.preprocess import apply

    image = apply(read_image(tiny.folder / "first.nii.gz"), config.preprocess)
    network, target = tiny_net.build().eval(), {"kind": "pixelwise", "label": 1}
    maps = explain(
        network, image, ["saliency", {"name": "integrated_gradients", "steps": 4}], target
    )
    live = evaluate(network, image, maps, METRICS[:2], target, controls=False)
    written = table(run).of(case="a")
    assert len(written) == len(live) == 4
    for row in live:
        assert written.value(row.metric, row.method) == pytest.approx(row.value, abs=2e-3)
    broken = run.folder / next(r.file for r in run.manifest.maps if r.label == "saliency")
    nibabel.save(nibabel.Nifti1Image(np.eye(14, 12)[..., None] + np.zeros(SHAPE), AFFINE), broken)
    (run.folder / "metrics.parquet").unlink()
    for cache in (run.folder / ".scores").iterdir():
        cache.unlink()
    run.manifest.seals.clear()  # with its seal, the file would be noticed and computed again
    (run.folder / "manifest.json").write_text(run.manifest.model_dump_json())
    shutil.rmtree(run.folder / "tasks")
    again, _ = go(tiny)
    other = table(again).of(case="a")
    assert other.value("sparseness", "saliency") != pytest.approx(
        written.value("sparseness", "saliency"), abs=1e-2
    )
    name = "integrated_gradients"
    assert other.value("sparseness", name) == written.value("sparseness", name)


def test_maps_come_back_from_their_files_with_what_they_mean(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a resampling, which keeps the sum of a map that shares out a score."""
    fields: dict[str, MapField] = {}

    def score(self: MapScorer, pending: PendingScore) -> Any:
        fields[pending.method] = self.context.fields[pending.method]
        return self.undefined(pending, "seen")

    monkeypatch.setattr(MapScorer, "score", score)
    steps = [{"kind": "spacing", "size": 1.5}]
    cam = {"name": "grad_cam", "layer": "act"}
    methods = ["saliency", "input_x_gradient", {"name": "deconvolution", "abs": True}, cam]
    model = {**tiny.config["models"][0], "preprocess": steps}
    run, _ = go(tiny, models=[model], methods=methods, cases=tiny.config["cases"][:1],
                metrics=["sparseness"], run={"controls": False})  # fmt: skip
    for method in Study.load(tiny.file).methods:
        assert fields[method.key].sign == method.properties().sign
    assert fields["deconvolution"].sign == "absolute"
    assert [fields[name].share for name in ("saliency", "input_x_gradient")] == [False, True]
    files = {record.label: run.folder / record.file for record in run.manifest.maps}
    written = {name: nibabel.load(file).get_fdata() for name, file in files.items()}
    kept = float(fields["input_x_gradient"].values.sum())
    assert kept == pytest.approx(written["input_x_gradient"].sum(), rel=1e-3)
    finer = 1.5 * 2 * 3 / 1.5**3
    values = float(fields["grad_cam"].values.sum()) / written["grad_cam"].sum()
    assert values == pytest.approx(finer, rel=0.2)


def test_random_methods_explain_again_with_the_same_draws(tiny: TinyStudy) -> None:
    method = {"name": "smoothgrad", "of": "input_x_gradient", "samples": 2, "label": "noisy"}
    metric = {"name": "max_sensitivity", "draws": 1, "radius": 1e-6}
    run, _ = go(tiny, methods=[method], metrics=[metric], cases=tiny.config["cases"][:1])
    assert table(run).value("max_sensitivity", "noisy") < 1e-3


def test_a_second_run_scores_nothing(tiny: TinyStudy, counted: list[tuple[str, str, str]]) -> None:
    first, _ = go(tiny, metrics=METRICS)
    before = table(first)
    counted.clear()
    second, recorder = go(tiny)
    assert counted == []
    assert recorder.computed == []
    assert repr(table(second)) == repr(before)
    run_study(Study.load(tiny.file), resume=False)
    assert len(counted) == len(before)


def test_only_what_is_new_is_scored(tiny: TinyStudy, counted: list[tuple[str, str, str]]) -> None:
    go(tiny, metrics=METRICS)
    counted.clear()
    run, _ = go(tiny, metrics=[*METRICS, "entropy"])
    assert {metric for _, metric, _ in counted} == {"entropy"}
    assert {row.metric for row in table(run)} == {"sparseness", "deletion", "roc_auc", "entropy"}
    counted.clear()
    go(tiny, methods=[*tiny.config["methods"], "input_x_gradient"])
    assert {name for _, _, name in counted} == {"input_x_gradient"}
    counted.clear()
    go(tiny, cases=with_reference(tiny))
    assert {case for case, _, _ in counted} == {"a"}
    assert ("a", "roc_auc", "saliency") in counted
    counted.clear()
    go(tiny, run={"seed": 1})
    assert {case for case, _, _ in counted} == {"a", "b"}


def test_rows_stay_in_the_order_of_the_plan_when_a_map_is_made_again(tiny: TinyStudy) -> None:
    run, _ = go(tiny, metrics=["sparseness"], cases=tiny.config["cases"][:1])
    before = [row.method for row in table(run)]
    (run.folder / "maps/a/net/a_label-1_desc-saliency_attr.nii.gz").unlink()
    (run.folder / "metrics.parquet").unlink()
    again, recorder = go(tiny, metrics=["sparseness", "entropy"])
    assert recorder.computed == ["a saliency", "a sparseness,entropy"]
    assert [row.method for row in table(again).of(metric="sparseness")] == before
    assert [row.method for row in table(again).of(metric="entropy")] == before
    assert [record.label for record in again.manifest.maps] == before[:2]


def test_agreement_compares_all_maps(tiny: TinyStudy, counted: list[tuple[str, str, str]]) -> None:
    run, _ = go(tiny, metrics=["method_agreement"], run={"controls": False})
    assert set(table(run).rows[0].facts) == {"integrated_gradients", "kendall_w"}
    counted.clear()
    run, _ = go(tiny, methods=[*tiny.config["methods"], "input_x_gradient"])
    assert ("a", "method_agreement", "saliency") in counted
    assert "input_x_gradient" in table(run).of(case="a", method="saliency").rows[0].facts


def test_other_networks_of_the_study_are_compared_with(tiny: TinyStudy) -> None:
    models = [*tiny.config["models"], {"name": "other", "factory": "tiny_net:build"}]
    steps = [{"kind": "pad_to_multiple", "multiple": 4}]
    models.append({"name": "padded", "factory": "tiny_net:build", "preprocess": steps})
    cases = tiny.config["cases"][:1]
    run, _ = go(tiny, metrics=["seed_agreement"], models=models, cases=cases)
    rows = [row for row in table(run) if row.method == "saliency"]
    by_model = {row.model: row for row in rows}
    assert by_model["net"].value == pytest.approx(1)  # the same weights
    assert set(by_model["net"].facts) == {"other"}
    assert "no other network" in by_model["padded"].reason


def test_a_metric_that_breaks_is_a_row_with_its_reason(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch, counted: list[tuple[str, str, str]]
) -> None:
    from voxplain.metrics import metrics

    kind = metrics.get("deletion")

    def broken(self: Any, field: Any, context: Any) -> Any:
        raise RuntimeError("/secret/path went wrong")

    with monkeypatch.context() as patched:
        patched.setattr(kind, "score", broken)
        run, recorder = go(tiny, metrics=METRICS)
    assert run.exit_code == 1
    assert all(task.kind == "metrics" for task in run.failed)
    assert "deletion: RuntimeError" in str(run.failed[0].reason)
    rows = table(run)
    for row in rows.of(metric="deletion"):
        assert math.isnan(row.value)
        assert "RuntimeError" in row.reason
        assert "secret" not in row.reason
    assert all(math.isfinite(row.value) for row in rows.of(metric="sparseness"))
    assert recorder.logs
    counted.clear()
    again, _ = go(tiny)
    assert again.exit_code == 0
    assert {metric for _, metric, _ in counted} == {"deletion"}
    assert all(math.isfinite(value) for value in table(again).of(metric="deletion").values())


def test_a_metric_that_takes_too_long_leaves_the_others(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from voxplain.metrics import metrics

    monkeypatch.setattr(metrics.get("deletion"), "score", lambda *_: time.sleep(30))
    start = time.monotonic()
    run, _ = go(tiny, metrics=METRICS, run={"timeout": "1s"}, cases=tiny.config["cases"][:1])
    assert time.monotonic() - start < 25
    assert "time limit" in table(run).of(metric="deletion").rows[0].reason
    assert all(math.isfinite(value) for value in table(run).of(metric="sparseness").values())


def test_maps_of_layers_are_left_out_with_a_remark(tiny: TinyStudy) -> None:
    methods = ["saliency", {"name": "layer_activation", "layers": ["features"]}]
    run, _ = go(tiny, methods=methods, metrics=["sparseness"], cases=tiny.config["cases"][:1])
    assert {row.method for row in table(run)} == {"saliency"} | CONTROLS
    (task,) = (task for task in run.manifest.tasks if task.kind == "metrics")
    assert "layer_activation" in " ".join(task.warnings)


def test_randomization_leaves_curves_and_pictures(
    tiny: TinyStudy, counted: list[tuple[str, str, str]]
) -> None:
    randomization = {"steps": 2, "seeds": 2, "methods": ["saliency"]}
    cases = tiny.config["cases"][:1]
    run, _ = go(tiny, randomization=randomization, cases=cases)
    assert run.exit_code == 0, [task.reason for task in run.failed]
    (record,) = read_randomizations(run.folder)
    assert (record.case, record.model, record.target, record.order) == ("a", "net", "1", "top_down")
    assert [randomized.method for randomized in record.maps] == ["saliency", "edges"]
    assert record.stages[0] == []
    assert record.stages[1] == ["head"]
    assert np.shape(record.maps[0].similarity["spearman"]) == (2, 3)
    pictures = read_pictures(run.folder, record)
    assert set(pictures) == {"saliency", "edges", "image"}
    assert len(pictures["saliency"]) == 3
    rows = table(run).of(metric="parameter_randomization")
    assert [row.method for row in rows] == ["saliency"]
    measure = rows.rows[0].parameters["similarity"]
    curve = np.nanmean(np.array(record.maps[0].similarity[measure], dtype=float), axis=0)
    np.testing.assert_allclose([y for _, y in rows.rows[0].curve], curve, rtol=1e-12)
    counted.clear()
    kept = (run.folder / "randomization").glob("a_net_*")
    stamps = {path: path.stat().st_mtime_ns for path in kept}
    go(tiny)
    assert counted == []
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"metrics": ["deletoin"]}, "study.yaml: metrics[0]: unknown metric 'deletoin'"),
        ({"metrics": ["sparseness", {"name": "deletion", "levles": 3}]},
         "study.yaml: metrics[1].deletion.levles: unknown parameter"),
        ({"metrics": ["deletion", "deletion"]}, "metrics: two of them are called 'deletion'"),
        ({"randomization": {"order": "sideways"}}, "study.yaml: randomization.order"),
        ({"randomization": {"methods": ["salience"]}},
         "randomization.methods: no method is called 'salience'"),
        ({"run": {"control": True}}, "study.yaml: run.control: unknown parameter"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_place(
    tiny: TinyStudy, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Study.load(tiny.write(**changes))
    assert sentence in str(caught.value)


def test_a_metric_that_would_take_too_long_is_refused_before_anything(tiny: TinyStudy) -> None:
    study = Study.load(tiny.write(metrics=[{"name": "deletion", "levels": 500}])).running(
        max_passes=400
    )
    with pytest.raises(ConfigError, match="deletion takes about 501 forwards"):
        check_study(study)
    assert not tiny.run.exists()


def test_the_plan_counts_shared_queries_once(tiny: TinyStudy) -> None:
    few = {"levels": 4}
    metrics = [
        {"name": "deletion", **few},
        {"name": "pixel_flipping", **few},
        {"name": "infidelity", "draws": 10},
        {"name": "infidelity_normalized", "draws": 10},
    ]
    cases = tiny.config["cases"][:1]
    study = Study.load(tiny.write(metrics=metrics, cases=cases))
    (evaluation,) = check_study(study).plan.evaluations
    maps = 2 + len(CONTROLS)
    assert evaluation.forwards == evaluation.passes == 5 * maps + 10
    study = Study.load(tiny.write(metrics=[{"name": "max_sensitivity", "draws": 3}]))
    (evaluation,) = check_study(study).plan.evaluations
    tasks = check_study(study).plan.tasks
    assert evaluation.passes == 3 * sum(task.passes for task in tasks)
    cascade = {"steps": 2, "seeds": 5, "methods": ["saliency"]}
    layered = [*tiny.config["methods"], {"name": "layer_activation", "layers": ["features"]}]
    study = Study.load(tiny.write(metrics=metrics, methods=layered, randomization=cascade))
    (evaluation,) = check_study(study).plan.evaluations
    assert evaluation.forwards == 5 * maps + 10
    assert evaluation.passes == evaluation.forwards + 2 * 5 * 1


def test_metrics_are_in_the_schema_and_in_the_resolved_study(tiny: TinyStudy) -> None:
    import yaml

    listed = Study.model_json_schema(by_alias=True)["properties"]["metrics"]["items"]["anyOf"]
    assert "deletion" in listed[0]["enum"]
    run, _ = go(tiny, metrics=METRICS, randomization={"steps": 1, "seeds": 1})
    resolved = yaml.safe_load((run.folder / "study.yaml").read_text())
    assert [metric["name"] for metric in resolved["metrics"]] == [
        "sparseness",
        "deletion",
        "roc_auc",
    ]
    assert resolved["randomization"]["order"] == "top_down"


def test_a_run_killed_while_evaluating_goes_on_where_it_was(
    tiny: TinyStudy, counted: list[tuple[str, str, str]]
) -> None:
    metrics = ["sparseness", {"name": "deletion", "levels": 4}, "entropy"]
    tiny.write(metrics=metrics, run={"workers": 0})
    reached = tiny.folder / "reached"
    code = (
        "import pathlib, time\n"
        "from voxplain.metrics import metrics\n"
        "from voxplain.study import Study, run_study\n"
        "def hang(*_):\n"
        "    pathlib.Path('reached').touch()\n"
        "    time.sleep(600)\n"
        "metrics.get('entropy').score = hang\n"
        "run_study(Study.load('study.yaml'))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tiny.folder, env=tiny.environment)
    while not reached.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tiny.run / "metrics.parquet").exists()
    run = run_study(Study.load(tiny.file))
    assert run.exit_code == 0
    assert {metric for case, metric, _ in counted if case == "a"} == {"entropy"}
    assert len(table(run)) == 2 * 3 * (2 + len(CONTROLS))


def test_nothing_written_names_the_reference(tiny: TinyStudy) -> None:
    run, _ = go(tiny, metrics=METRICS, cases=with_reference(tiny))
    for file in run.folder.rglob("*"):
        if file.is_file():
            assert b"mask.nii.gz" not in file.read_bytes(), file
    assert Path(run.folder / "metrics.parquet").is_file()


@pytest.mark.parametrize(
    ("stated", "inside", "remark"),
    [({}, 1, "compared with 1"), ({"reference_label": 2}, 2, ""), ({"reference_label": 3}, 3, "")],
)
def test_the_label_of_the_reference_is_that_of_the_target_unless_told(
    tiny: TinyStudy, stated: dict[str, int], inside: int, remark: str
) -> None:
    """Label 1 is where the image is bright, label 2 elsewhere, label 3 nowhere."""
    bright = blob((6, 6, 5)) > 1
    labels = np.where(bright, 1, 2).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(labels, AFFINE), tiny.folder / "labels.nii.gz")
    case = {"id": "a", "image": "first.nii.gz", "reference": "labels.nii.gz", **stated}
    run, _ = go(tiny, metrics=["relevance_mass_accuracy"], cases=[case])
    (row,) = table(run).of(method="saliency")
    (task,) = (task for task in run.manifest.tasks if task.kind == "metrics")
    assert remark in " ".join(task.warnings)
    assert bool(task.warnings) is bool(remark)
    if inside == 3:
        assert "reference" in row.reason
        return
    positive = np.asanyarray(nibabel.load(run.maps[0]).dataobj).clip(0)
    expected = positive[labels == inside].sum() / positive.sum()
    assert row.value == pytest.approx(expected, rel=1e-5)


def test_pictures_without_physical_size_are_scored(tiny: TinyStudy) -> None:
    """A classifier, a PNG and a PNG mask; and again from the copies in the run directory."""
    from PIL import Image as Picture

    ball = blob((6, 6, 5))[:, :, 5]
    gray = np.clip(ball / ball.max() * 255, 0, 255).astype(np.uint8)
    Picture.fromarray(gray).save(tiny.folder / "photo.png")
    Picture.fromarray((gray > 120).astype(np.uint8) * 255).save(tiny.folder / "truth.png")
    (tiny.packages / "flat_net.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "def build() -> nn.Module:\n"
        "    torch.manual_seed(0)\n"
        "    body = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)\n"
        "    return nn.Sequential(*body, nn.Flatten(), nn.Linear(4, 2))\n"
    )
    steps = [{"kind": "pad_to_multiple", "multiple": 4}, {"kind": "normalize", "mode": "minmax"}]
    run, _ = go(
        tiny,
        cases=[{"id": "a", "image": "photo.png", "reference": "truth.png"}],
        models=[{"name": "net", "factory": "flat_net:build", "preprocess": steps}],
        target={"kind": "class_score", "label": 1},
        metrics=[*METRICS, "distance_to_lesion"],
        randomization={"steps": 2, "seeds": 1},
    )
    assert run.exit_code == 0, [task.reason for task in run.failed]
    rows = table(run)
    for name in ("roc_auc", "deletion", "distance_to_lesion"):
        assert all(math.isfinite(value) for value in rows.of(metric=name, control=False).values())
    study = study_of_run(run.folder, {})
    with pytest.warns(VoxplainWarning, match="copies in the run directory"):
        assert evaluate_run(run.folder, reevaluation_of(study, [], None)).failures == ()
    again = table(run)
    assert len(again) == len(rows)
    for row in rows.of(control=False, metric="roc_auc"):
        assert again.value("roc_auc", row.method) == pytest.approx(row.value, abs=0.02)


def test_windows_score_much_like_the_whole(tiny: TinyStudy) -> None:
    """Not equal: the network pads every window with zeros."""
    cases = tiny.config["cases"][:1]
    metrics = [{"name": "deletion", "levels": 3}, {"name": "infidelity", "draws": 4}]
    whole, _ = go(tiny, metrics=metrics, cases=cases, methods=["saliency"])
    before = table(whole)
    window = {"size": [8, 8, 8], "overlap": 0.5, "blend": "constant"}
    model = {**tiny.config["models"][0], "window": window}
    windowed, _ = go(tiny, models=[model], output="windowed")
    assert windowed.exit_code == 0, [task.reason for task in windowed.failed]
    for row in table(windowed).of(control=False):
        assert math.isfinite(row.value)
        assert row.value == pytest.approx(before.value(row.metric, row.method), rel=0.05, abs=0.02)
