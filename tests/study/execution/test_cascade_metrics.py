"""Metrics at every step of a cascade in a study: results, cost, and metrics that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import yaml
from pyarrow import parquet
from tiny import AFFINE, TinyStudy, blob

from voxplain.errors import ConfigError
from voxplain.metrics import metric_key, parse_metric
from voxplain.records.cascades import RandomizationRecord, read_randomizations, scores_along
from voxplain.records.scores import Scores
from voxplain.study import Run, Study, check_study, run_study
from voxplain.study.execution import evaluator

GAP = {"name": "morf_lerf_gap", "levels": 4}
RANDOMIZATION: dict[str, Any] = {"steps": 2, "seeds": 2, "methods": ["saliency"], "pictures": False}


def reference(tiny: TinyStudy, above: float) -> list[dict[str, Any]]:
    """The first case with a mask of its bright ball."""
    mask = (blob((6, 6, 5)) > above).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(mask, AFFINE), tiny.folder / "mask.nii.gz")
    return [{"id": "a", "image": "first.nii.gz", "reference": "mask.nii.gz"}]


def go(
    tiny: TinyStudy, along: list[Any], above: float = 1.0, **changes: Any
) -> tuple[Run, RandomizationRecord]:
    changes["cases"] = reference(tiny, above)
    randomization = {**RANDOMIZATION, "metrics": along}
    run = run_study(Study.load(tiny.write(randomization=randomization, **changes)))
    assert run.exit_code == 0, [task.reason for task in run.failed]
    (record,) = read_randomizations(run.folder)
    return run, record


@pytest.fixture
def cascades(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cases whose cascade has been computed."""
    cases, original = [], evaluator.write_randomization

    def write(folder: Path, record: RandomizationRecord, pictures: Any) -> None:
        cases.append(record.case)
        original(folder, record, pictures)

    monkeypatch.setattr(evaluator, "write_randomization", write)
    return cases


def test_every_step_of_every_map_has_its_scores(tiny: TinyStudy) -> None:
    run, record = go(tiny, [GAP, "roc_auc"], metrics=[GAP, "roc_auc"])
    assert [(metric.key, metric.name, metric.direction) for metric in record.metrics] == [
        ("morf_lerf_gap, levels 4", "morf_lerf_gap", "up"),
        ("roc_auc", "roc_auc", "up"),
    ]
    assert (record.metrics[1].minimum, record.metrics[1].maximum) == (0.0, 1.0)
    assert [randomized.method for randomized in record.maps] == ["saliency", "edges"]
    table = Scores.read(run.folder / "metrics.parquet")
    for randomized in record.maps:
        for metric in record.metrics:
            scores = scores_along(randomized, metric.key)
            assert scores.shape == (2, 3)
            first = table.value(metric.name, randomized.method)
            assert scores[:, 0] == pytest.approx([first, first], abs=1e-3)


def test_a_control_stays_and_the_network_that_scores_it_changes(tiny: TinyStudy) -> None:
    _, record = go(tiny, [GAP, "roc_auc"])
    _, edges = record.maps
    places = scores_along(edges, "roc_auc")
    assert np.ptp(places) == 0  # needs the reference alone
    removal = scores_along(edges, "morf_lerf_gap, levels 4")
    assert np.ptp(removal[0]) > 1e-3
    assert not np.array_equal(removal[0], removal[1])
    assert all(value == 1 for value in edges.similarity["spearman"][0])


def test_without_metrics_nothing_is_scored(tiny: TinyStudy) -> None:
    _, record = go(tiny, [])
    assert record.metrics == []
    assert all(randomized.scores == {} for randomized in record.maps)


def test_units_are_those_of_the_grid(tiny: TinyStudy) -> None:
    _, record = go(tiny, ["effective_volume", "distance_to_lesion", "components"])
    assert [metric.unit for metric in record.metrics] == ["mL", "mm", "count"]


def test_the_tidy_table_lies_beside_the_records(tiny: TinyStudy) -> None:
    run, record = go(tiny, [GAP])
    rows = parquet.read_table(run.folder / "randomization" / "steps.parquet").to_pylist()
    assert {row["measure"] for row in rows} == {
        *record.maps[0].similarity,
        metric_key(parse_metric(GAP)),
    }
    values = {
        (row["method"], row["seed"], row["step"]): row["value"]
        for row in rows
        if row["kind"] == "metric"
    }
    assert len(values) == 2 * 2 * 3
    for randomized in record.maps:
        for (seed, step), value in np.ndenumerate(
            scores_along(randomized, metric_key(parse_metric(GAP)))
        ):
            assert values[randomized.method, seed, step] == value


def test_a_cascade_is_computed_anew_if_and_only_if_it_would_be_another(
    tiny: TinyStudy, cascades: list[str]
) -> None:
    go(tiny, [])
    assert cascades == ["a"]
    go(tiny, [], above=0.5)
    assert cascades == ["a"]  # similarities know nothing of the reference
    go(tiny, ["roc_auc"], above=0.5)
    assert cascades == ["a"] * 2
    _, before = go(tiny, ["roc_auc"], above=0.5)
    assert cascades == ["a"] * 2
    _, after = go(tiny, ["roc_auc"])
    assert cascades == ["a"] * 3
    assert (
        scores_along(before.maps[0], "roc_auc")[0, 0]
        != scores_along(after.maps[0], "roc_auc")[0, 0]
    )
    go(tiny, [{"name": "deletion", "levels": 4}])
    go(tiny, [{"name": "deletion", "levels": 5}])
    assert cascades == ["a"] * 5


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        (["morf_lerf_gp"], "study.yaml: randomization.metrics[0]: unknown metric 'morf_lerf_gp'"),
        (["roc_auc", {"name": "deletion", "levles": 3}],
         "study.yaml: randomization.metrics[1].deletion.levles: unknown parameter; did you mean"),
        (["deletion", {"name": "deletion", "levels": 32}],
         "randomization.metrics: two of them are called 'deletion'"),
        (["parameter_randomization"],
         "study.yaml: randomization.metrics[0]: parameter_randomization checks itself how maps"),
        (["roc_auc", "method_agreement"],
         "randomization.metrics[1]: method_agreement compares the map with those of other"),
        (["consistency"], "randomization.metrics[0]: consistency compares cases"),
        (["calibration"], "randomization.metrics[0]: calibration is about a network and no map"),
        (["completeness_residual"], "such as morf_lerf_gap or roc_auc"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_place(
    tiny: TinyStudy, metrics: list[Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Study.load(tiny.write(randomization={"metrics": metrics}))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_metrics_with_two_fills_are_two(tiny: TinyStudy) -> None:
    fills = [{"name": "deletion", "fill": fill} for fill in ("blur", "mean", "noise")]
    study = Study.load(tiny.write(randomization={"metrics": fills}, metrics=fills))
    assert study.randomization is not None
    keys = [metric_key(metric) for metric in study.randomization.metrics]
    assert keys == ["deletion", "deletion, fill mean", "deletion, fill noise sigma 0.01"]


def test_the_plan_counts_the_forwards_of_every_network(tiny: TinyStudy) -> None:
    cases = tiny.config["cases"][:1]
    few = [{"name": "deletion", "levels": 4}, {"name": "infidelity", "draws": 10}]
    (plain,) = check_study(
        Study.load(tiny.write(randomization=RANDOMIZATION, cases=cases))
    ).plan.evaluations
    randomization = {**RANDOMIZATION, "metrics": few}
    study = Study.load(tiny.write(randomization=randomization))
    (evaluation,) = check_study(study).plan.evaluations
    networks, maps = 2 * 2 + 1, 1 + 1  # the trained network, and an edge detector
    assert evaluation.forwards - plain.forwards == networks * (5 * maps + 10)
    assert evaluation.passes - plain.passes == networks * (5 * maps + 10)
    assert "20 forwards for each of these" in evaluation.streams
    again = {**RANDOMIZATION, "metrics": [{"name": "max_sensitivity", "draws": 3}]}
    (evaluation,) = check_study(Study.load(tiny.write(randomization=again))).plan.evaluations
    (saliency,) = (task for task in check_study(Study.load(tiny.file)).plan.tasks
                   if task.labels == ["saliency"])  # fmt: skip
    assert evaluation.passes - plain.passes == networks * 3 * saliency.passes


def test_what_would_take_too_long_is_refused_before_anything(tiny: TinyStudy) -> None:
    randomization = {**RANDOMIZATION, "metrics": [{"name": "deletion", "levels": 100}]}
    study = Study.load(tiny.write(randomization=randomization))
    check_study(study.running(max_passes=5 * 101))
    with pytest.raises(ConfigError) as caught:
        check_study(study.running(max_passes=5 * 101 - 1))
    assert "randomization.metrics: deletion, for 5 networks, takes about 505 forwards" in str(
        caught.value
    )
    assert not tiny.run.exists()


def test_metrics_of_a_cascade_are_in_the_schema_and_in_the_resolved_study(tiny: TinyStudy) -> None:
    schema = Study.model_json_schema(by_alias=True)["$defs"]["RandomizationConfig"]
    listed = schema["properties"]["metrics"]["items"]["anyOf"]
    assert "morf_lerf_gap" in listed[0]["enum"]
    run, _ = go(tiny, [GAP])
    resolved = yaml.safe_load((run.folder / "study.yaml").read_text())
    assert resolved["randomization"]["metrics"][0]["levels"] == 4
    assert (
        Study.load(tiny.file).randomization
        == Study.parse(
            {**tiny.config, "randomization": resolved["randomization"]}, base=Path(tiny.folder)
        ).randomization
    )


def test_the_report_draws_them(tiny: TinyStudy) -> None:
    run, _ = go(tiny, [GAP], metrics=["sparseness"])
    text = run.write_report().read_text()
    assert "Scores of the maps, each with the network of its step" in text
    assert "MoRF-LeRF gap, higher is better: Saliency from" in text
