"""Every metric: any rank, task and number of channels, the same twice, each image by itself."""

from __future__ import annotations

import math

import pytest
import torch
from every_metric import (
    CROSS_CASE,
    METHODS,
    NAMES,
    OF_NETWORK,
    SCORE,
    TASKS,
    lesion,
    maps_of,
    short,
    table,
)
from metric_cases import LinearClasses, bright, metric_context, reason
from networks import images, one_slice, segmenter, untouched
from torch import Tensor

from voxplain.attribution import explain
from voxplain.errors import ConfigError
from voxplain.metrics import Case, MapField, evaluate, metrics
from voxplain.metrics.controls import CONTROLS
from voxplain.metrics.cross_case import ALONE
from voxplain.records.scores import Score, Scores

RESAMPLED = "monotonicity_correlation"
every_setting = pytest.mark.parametrize(
    ("task", "rank", "channels"),
    [(task, rank, channels) for task in TASKS for rank in (2, 3) for channels in (1, 4)],
)
ABOUT_OBJECTS = (
    "dice_drop",
    "volume_change",
    "context_share",
    "boundary_share",
    "uncertainty_correlation",
)
ABOUT_CLASSES = ("focus",)
NO_METHOD = (  # metrics that explain again, which controls cannot
    "architecture_agreement",
    "average_sensitivity",
    "continuity",
    "data_randomization",
    "efficient_parameter_randomization",
    "focus",
    "input_invariance",
    "local_lipschitz",
    "map_uncertainty",
    "max_sensitivity",
    "medical_stability",
    "parameter_randomization",
    "random_logit",
    "relative_input_stability",
    "relative_output_stability",
    "relative_representation_stability",
    "seed_agreement",
    "smooth_parameter_randomization",
)


def _may_be_undefined(row: Score, task: str, channels: int) -> bool:
    if row.metric in CROSS_CASE:
        return row.reason == ALONE
    if row.metric in ("completeness_residual", "error_localization"):
        return True  # of methods that promise it, of targets that are errors
    if row.control and row.metric in NO_METHOD:
        return True
    if row.control and row.metric == "sensitivity_n":
        return "constant" in row.reason  # smooth controls share little among nine regions
    if row.metric in ("irof", "selectivity") and "pixel_flipping" in row.reason:
        return True  # a random network may score filled images as high
    if row.metric == "channel_share":
        return row.control and channels > 1
    if row.metric in ABOUT_OBJECTS:
        return task == "classification"
    return row.metric in ABOUT_CLASSES and task == "segmentation"


def _numbers(scores: Scores) -> list[tuple[str, str, str, float]]:
    return [(row.case, row.metric, row.method, round(row.value, 9)) for row in scores]


@every_setting
def test_every_metric_has_a_value_or_a_reason(task: str, rank: int, channels: int) -> None:
    scores = table(task, rank, channels)
    assert {row.metric for row in scores} == set(NAMES)
    maps = (*METHODS, *CONTROLS)
    for name in NAMES:
        methods = [row.method for row in scores if row.metric == name]
        assert sorted(methods) == sorted([""] if name in OF_NETWORK else maps)
    for row in scores:
        assert math.isnan(row.value) == bool(row.reason), row
        if row.reason:
            assert _may_be_undefined(row, task, channels), row
        else:
            assert row.minimum is None or row.value >= row.minimum - 1e-9, row
            assert row.maximum is None or row.value <= row.maximum + 1e-9, row


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_gives_the_same_scores(task: str) -> None:
    network, target = TASKS[task][0](2, 1), TASKS[task][1]
    with untouched(network):
        maps = maps_of(network, images(), target)
        evaluate(network, images(), maps, [short(name) for name in NAMES], target)
    once, again = table(task, 2, 1), table(task, 2, 1)
    assert str(_numbers(once)) == str(_numbers(again))  # NaN equals itself as text
    reseeded = table(task, 2, 1, seed=1)
    changed = {
        row.metric for row, before in zip(reseeded, once, strict=True) if row.value != before.value
    }
    assert {"infidelity", "max_sensitivity", "faithfulness_correlation"} <= changed


@pytest.mark.parametrize("task", TASKS)
def test_batch_mates_do_not_change_a_score(task: str) -> None:
    """Scaling a neighbor a thousand times took an effective complexity from 222 to 0 elsewhere."""
    build, target = TASKS[task]
    network, batch = build(2, 1).double(), images(2, 1, 8).double()
    batch[1] *= 1000 if task == "classification" else 2
    left_out = (RESAMPLED, *CROSS_CASE)
    specs = [short(name) for name in NAMES if name not in left_out and "_parameter_" not in name]

    method = {"name": "integrated_gradients", "steps": 2}

    def scores(images: Tensor) -> list[Score]:
        maps = explain(network, images, method, target)
        cases = [Case(mask=lesion(2))] * len(images)
        return list(evaluate(network, images, maps, specs, target, cases=cases, controls=False))

    together = scores(batch)
    for index in (0, 7):
        alone = scores(batch[index : index + 1])
        mine = [row for row in together if row.case == str(index)]
        assert [row.metric for row in mine] == [row.metric for row in alone]
        expected = pytest.approx([row.value for row in alone], rel=1e-6, abs=1e-9, nan_ok=True)
        assert [row.value for row in mine] == expected


@pytest.mark.parametrize("task", TASKS)
def test_later_images_count(task: str) -> None:
    """Negating the maps of later batches changed nothing in another library."""
    network, target = TASKS[task][0](2, 1).double(), TASKS[task][1]
    batch = images(2, 1, 3).double()
    maps = explain(network, batch, "input_x_gradient", target)["input_x_gradient"].map
    negated = torch.cat([maps[:1], -maps[1:]])
    specs = [short("sensitivity_n")]
    before = evaluate(network, batch, {"m": maps}, specs, target, controls=False).values()
    after = evaluate(network, batch, {"m": negated}, specs, target, controls=False).values()
    assert after == pytest.approx([before[0], -before[1], -before[2]])


@pytest.mark.parametrize("task", TASKS)
def test_a_slice_and_a_volume_of_one_slice_score_the_same(task: str) -> None:
    flat, target = TASKS[task][0](2, 2).double(), TASKS[task][1]
    thin, image, mask = one_slice(flat), images(2, 2).double(), lesion(2)
    others = images(2, 2, 12).double()[8:]
    specs = [short(name) for name in NAMES]
    of_slice = evaluate(
        flat,
        image,
        maps_of(flat, image, target),
        specs,
        target,
        cases=[Case(mask=mask)],
        references=others,
    )
    of_volume = evaluate(
        thin,
        image[:, :, None],
        maps_of(thin, image[:, :, None], target),
        specs,
        target,
        cases=[Case(mask=mask[None])],
        references=others[:, :, None],
    )
    for row, lifted in zip(of_slice, of_volume, strict=True):
        assert row.value == pytest.approx(lifted.value, rel=1e-5, abs=1e-7, nan_ok=True), (
            row.metric,
            row.method,
        )


NOTHING_TO_SAY = {
    "zero": torch.zeros(1, 6, 6),
    "constant": torch.full((1, 6, 6), 0.3),
    "nan": torch.randn(1, 6, 6).index_fill(1, torch.tensor([2]), math.nan),
    "infinite": torch.randn(1, 6, 6).index_fill(1, torch.tensor([2]), math.inf),
}


@pytest.mark.parametrize("kind", NOTHING_TO_SAY)
@pytest.mark.parametrize("name", [name for name in NAMES if name not in OF_NETWORK])
def test_a_constant_or_infinite_map_has_no_score(name: str, kind: str) -> None:
    """The reason is about the map, not about methods, masks or other networks."""
    network, image = segmenter().double(), images().double()
    target = TASKS["segmentation"][1]
    attribution = explain(network, image, "saliency", target)["saliency"][0]
    others = images(2, 1, 4).double()[1:]
    maps = {"saliency": attribution}
    context = metric_context(network, image[0], maps, target, mask=lesion(2), references=others)
    parameters = short(name)
    said = reason(
        parameters.pop("name"), MapField("saliency", NOTHING_TO_SAY[kind]), context, **parameters
    )
    assert any(word in said for word in ("constant", "NaN", *ELSEWHERE.get(name, ())))


ELSEWHERE = {
    "completeness_residual": ("promise",),
    "method_agreement": ("no other map",),
}


AGAIN = ("max_sensitivity", "parameter_randomization", "random_logit", "deletion", "infidelity")


def test_the_mode_of_the_caller_does_not_matter() -> None:
    """Inside inference mode, or with a network in training: gradients are needed, dropout not."""
    plain, training = segmenter(), segmenter().train()
    target = TASKS["segmentation"][1]
    maps, specs = maps_of(plain, images(), target), [short(name) for name in AGAIN]
    expected = evaluate(plain, images(), maps, specs, target)
    with torch.inference_mode():
        inside = evaluate(plain, images().clone(), maps, specs, target)
    with untouched(training):
        trained = evaluate(training, images(), maps, specs, target)
    assert str(_numbers(inside)) == str(_numbers(trained)) == str(_numbers(expected))


def test_a_metric_that_lacks_an_input_gives_a_reason() -> None:
    """The other metrics keep their scores."""
    network, image = LinearClasses((1, 6, 6)), bright()
    maps = {"noise": torch.randn(1, 6, 6)}
    scores = evaluate(network, image[None], [maps], [RESAMPLED, "sparseness"], SCORE)
    assert "none is given" in scores.of(metric=RESAMPLED, method="noise").rows[0].reason
    assert math.isfinite(scores.value("sparseness", "noise"))


def test_a_map_must_not_have_the_name_of_a_control() -> None:
    network, image = LinearClasses((1, 6, 6)), bright()
    maps = {"edges": torch.randn(1, 6, 6)}
    with pytest.raises(ConfigError, match="'edges', which is the name of a control"):
        evaluate(network, image[None], [maps], ["sparseness"], SCORE)
    scores = evaluate(network, image[None], [maps], ["sparseness"], SCORE, controls=False)
    assert len(scores) == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_says_what_it_is(name: str) -> None:
    metric = metrics.get(name)
    assert metric.direction in ("up", "down", "none")
    assert len(metric.meaning().split()) > 4
    low, high = metric.range
    assert low is None or high is None or low < high
