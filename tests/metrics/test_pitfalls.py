"""Errors that users of other libraries reported do not occur here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from every_metric import lesion, short
from metric_cases import (
    CLASS_ONE,
    LinearClasses,
    bright,
    explained,
    metric_context,
    number,
    present,
    value,
)
from networks import classifier, images, segmenter
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.errors import InputError
from voxplain.image import Image
from voxplain.metrics import Case, MapField, Query, evaluate, metrics
from voxplain.models.model import Model
from voxplain.records.scores import Scores

BLOCKS: dict[str, Any] = {"kind": "blocks", "size": 2}


def test_one_image_has_one_number_on_dense_outputs() -> None:
    """Flipping on a segmentation network returned an array of shape (2, 4, 16, 16)."""
    network, image = segmenter(), images()
    target = {"kind": "pixelwise", "label": 1}
    maps = explain(network, image, "saliency", target)
    scores = evaluate(network, image, maps, ["pixel_flipping"], target, controls=False)
    assert len(scores) == 1
    assert isinstance(scores.rows[0].value, float)
    assert scores.rows[0].target


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7), (1, 9), (11, 4)])
@pytest.mark.parametrize("levels", [3, 10, 32])
def test_steps_need_not_divide_the_voxels(shape: tuple[int, ...], levels: int) -> None:
    image = torch.rand(1, *shape, dtype=torch.float64) + 0.5
    network = present(LinearClasses((1, *shape)))
    values = network.weight.detach()[1] * image
    result = value(
        "deletion",
        MapField("m", values),
        metric_context(network, image),
        fill="zero",
        levels=levels,
    )
    assert len(result.curve) == levels + 1
    assert result.curve[0] == (0, pytest.approx(1))
    assert result.curve[-1] == (1, pytest.approx(0, abs=1e-12))


def test_more_levels_converge() -> None:
    image = bright(2, 1, 24)
    network = present(LinearClasses((1, 24, 24)))
    values, context = network.weight.detach()[1] * image, metric_context(network, image)
    areas = [number("deletion", values, context, fill="zero", levels=n) for n in (16, 32, 64, 576)]
    errors = [abs(area - areas[-1]) for area in areas[:-1]]
    assert errors[2] < errors[1] < errors[0]
    assert errors[1] < 0.01 * abs(areas[-1])


def test_the_fill_is_the_given_number() -> None:
    """On z-scored images the minimum is far from zero; the row says what was filled."""
    image = torch.randn(1, 6, 6, dtype=torch.float64) - 3
    network = LinearClasses((1, 6, 6))
    context, weight = metric_context(network, image), network.weight.detach()[1]
    levels = {"zero": 0.0, "minimum": float(image.min()), 2.5: 2.5}
    for fill, level in levels.items():
        whole_drop = float((weight * (image - level)).sum())
        result = value("pixel_flipping", MapField("m", torch.randn(1, 6, 6)), context, fill=fill)
        assert result.curve[-1][1] == pytest.approx(whole_drop)
    specs = [{"name": "pixel_flipping", "fill": "minimum"}]
    (row,) = evaluate(
        network, image[None], {"m": torch.randn(1, 1, 6, 6)}, specs, CLASS_ONE, controls=False
    )
    assert row.parameters["fill"] == {"kind": "constant", "value": "minimum"}


def test_signs_are_kept() -> None:
    """A map and its negative are opposite statements: nothing is made absolute on the way."""
    image = bright(2, 1, 6)
    network = LinearClasses((1, 6, 6))
    values, context = network.weight.detach()[1] * image, metric_context(network, image)
    parameters: dict[str, Any] = {"regions": BLOCKS, "fill": "zero"}
    correlation = number("faithfulness_correlation", values, context, **parameters)
    assert correlation == pytest.approx(
        -number("faithfulness_correlation", -values, context, **parameters)
    )
    assert number("deletion", values, context, fill="zero") < number(
        "deletion", -values, context, fill="zero"
    )


def test_logits_are_scored_by_default() -> None:
    """Softmax saturates: a confident network would seem to lose nothing."""
    network, image = LinearClasses((1, 6, 6)), bright(2, 1, 6)
    context = metric_context(network, image)
    assert context.score == pytest.approx(float(network(image[None])[0, 1].detach()))
    target = {"kind": "class_score", "label": 1, "link": "probability"}
    probability = metric_context(network, image, target=target).score
    assert probability == pytest.approx(float(network(image[None]).softmax(1)[0, 1].detach()))


def test_every_requested_score_is_a_row() -> None:
    """Eleven of nineteen callers computed a metric and dropped it."""
    network, batch = classifier(), images(2, 1, 2)
    maps = explain(network, batch, ["saliency", "input_x_gradient"], CLASS_ONE)
    specs = ["deletion", "sparseness", "entropy"]
    scores = evaluate(network, batch, maps, [short(name) for name in specs], CLASS_ONE)
    cells = {(row.case, row.metric, row.method) for row in scores}
    assert len(cells) == len(scores) == 2 * 3 * (2 + 4)


def test_rounding_is_no_violation_of_completeness() -> None:
    """Equality of floats called an exact linear attribution wrong every time."""
    context = explained(LinearClasses((1, 6, 6)), bright(2, 1, 6), "integrated_gradients")
    result = value("completeness_residual", context.fields["integrated_gradients"], context)
    assert 0 <= result.value < 1e-5


class Counted(nn.Module):
    """A linear score that counts the images it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.seen = LinearClasses((1, 6, 6)), 0

    def forward(self, image: Tensor) -> Tensor:
        self.seen += len(image)
        return self.inner(image)


def test_passes_are_shared_by_maps_and_metrics() -> None:
    """f(x) was computed again in every chunk: 110 images for 100 changes."""
    network, image = Counted(), bright(2, 1, 6)
    maps = {f"map {n}": torch.randn(1, 6, 6) for n in range(5)}
    specs = ["infidelity", "infidelity_normalized"]
    evaluate(network, image[None], [maps], specs, CLASS_ONE, controls=False)
    # 64 changes, the look, and one image alone and beside another, for five maps and both metrics.
    assert network.seen <= 64 + 2 + 3
    network.seen = 0
    removal = ["deletion", "pixel_flipping", "insertion", "monotonicity", "morf_lerf_gap"]
    evaluate(network, image[None], [{"m": maps["map 0"]}], removal, CLASS_ONE, controls=False)
    assert network.seen <= 2 * 33 + 2


@pytest.mark.parametrize("share", [0.05, 0.2, 0.8])
def test_subsets_are_fractions_of_the_regions(share: float) -> None:
    context = metric_context(LinearClasses((1, 6, 6)), bright(2, 1, 6))
    metric = metrics.get("faithfulness_correlation")
    parsed = metric.model_validate({"name": metric.title(), "regions": BLOCKS, "share": share})
    result = context.run_query(parsed.queries(context.engine)[0])
    assert result.removed.shape == (100, 9)
    assert result.removed.sum(dim=1).tolist() == [max(1, round(9 * share))] * 100
    assert len({tuple(row) for row in result.removed.tolist()}) > 5


def test_another_network_has_a_cache_of_its_own() -> None:
    context = metric_context(LinearClasses((1, 6, 6)), bright(2, 1, 6))
    context.cached("key", lambda: 1)
    other = context.with_model(Model(LinearClasses((1, 6, 6))))
    assert other.cached("key", lambda: 2) == 2
    assert context.cached("key", lambda: 3) == 1


def test_queries_are_compared_by_value() -> None:
    context = metric_context(LinearClasses((1, 6, 6)), bright(2, 1, 6)).engine

    def queries(name: str, **parameters: Any) -> tuple[Query, ...]:
        return metrics.get(name)(name=name, **parameters).queries(context)

    assert queries("infidelity") == queries("infidelity_normalized")
    assert queries("deletion") == queries("pixel_flipping") == queries("dice_drop")
    assert queries("deletion") != queries("deletion", levels=8)


def test_results_of_deleted_maps_are_not_reused() -> None:
    """Results belong to the map, not to its place in memory, which another map may take."""
    image = bright(2, 1, 6)
    network = LinearClasses((1, 6, 6))
    context, exact = metric_context(network, image), network.weight.detach()[1] * image
    expected = number("deletion", exact, context, fill="zero")
    for _ in range(50):
        number("deletion", torch.randn(1, 6, 6), context, fill="zero")
        assert number("deletion", exact.clone(), context, fill="zero") == expected


def test_a_map_on_another_grid_is_refused_by_name() -> None:
    network, image = LinearClasses((1, 6, 6)), bright(2, 1, 6)
    with pytest.raises(InputError, match="small"):
        evaluate(network, image[None], [{"small": torch.randn(1, 3, 3)}], ["sparseness"], CLASS_ONE)


def test_a_mask_of_the_file_follows_the_image() -> None:
    image = Image.from_array(bright(2, 1, 6), (2, 1))
    values = lesion(2)[None]
    scores = evaluate(
        LinearClasses((1, 6, 6)),
        image,
        {"m": values},
        ["roc_auc"],
        CLASS_ONE,
        cases=[Case(mask=lesion(2))],
    )
    assert scores.value("roc_auc", "m") == 1


def test_one_table_holds_everything(tmp_path: Path) -> None:
    network, batch = classifier(), images(2, 1, 2)
    maps = explain(network, batch, "saliency", CLASS_ONE)
    specs = [short(name) for name in ("deletion", "completeness_residual", "max_dice")]
    cases = [Case(name, mask=lesion(2)) for name in ("a", "b")]
    scores = evaluate(network, batch, maps, specs, CLASS_ONE, cases=cases)
    scores.write(tmp_path / "scores.parquet")
    again = Scores.read(tmp_path / "scores.parquet")
    assert len(again) == len(scores)
    for row, back in zip(scores, again, strict=True):
        assert math.isnan(row.value) == math.isnan(back.value)
        assert math.isnan(row.value) or row.value == back.value
        assert (row.case, row.metric, row.method, row.reason) == (
            back.case,
            back.metric,
            back.method,
            back.reason,
        )
        assert row.curve == back.curve
        assert row.direction == back.direction
    assert {row.case for row in again} == {"a", "b"}
    assert {row.model for row in again} == {Model(network).name}
