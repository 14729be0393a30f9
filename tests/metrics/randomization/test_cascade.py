"""Cascades: maps that depend on the network change with it, others stay."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from metric_cases import CLASS_ONE, explained, metric_context, reason, value
from networks import classifier, images, segmenter, untouched
from scipy import stats
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from trained import disks, shapes, trained

from voxplain.attribution import explain
from voxplain.attribution.methods.saliency import Saliency
from voxplain.engine.context import Context
from voxplain.engine.stream_io import StreamResults
from voxplain.metrics import MetricContext, evaluate
from voxplain.metrics.controls import edges
from voxplain.metrics.randomization import (
    Cascade,
    Similarity,
    Steps,
    reinitialize,
    similarity,
    stages,
)
from voxplain.models.copies import copied
from voxplain.models.model import Model

MEASURES = ("spearman", "spearman_absolute", "ssim", "hog")
every_order = pytest.mark.parametrize("order", ["top_down", "bottom_up", "independent"])


class EdgeDetector(Saliency):
    """Edges of the image, whatever the network."""

    name: Literal["edge_detector"] = "edge_detector"  # type: ignore[assignment]
    units: ClassVar[str] = "none"

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        return {None: edges(results.item.image, (1.0,) * len(context.shape))[None]}


def _cascade(context: MetricContext, **options: Any) -> dict[str, Steps]:
    return Cascade(**options).run(context)


def _context(network: nn.Module, image: Tensor, *methods: Any, **options: Any) -> MetricContext:
    attributions = explain(network, image[None], list(methods), CLASS_ONE, **options)
    return metric_context(
        network,
        image,
        {name: attribution[0] for name, attribution in attributions.items()},
        CLASS_ONE,
    )


@every_order
@pytest.mark.parametrize("rank", [2, 3])
def test_saliency_changes_and_edges_stay(rank: int, order: str) -> None:
    network, image = classifier(rank), images(rank, 1, 1, 6)[0]
    with untouched(network):
        context = _context(network, image, "saliency", EdgeDetector())
        steps = _cascade(context, order=order, seeds=2)
    for curve in steps["edge_detector"].curves:
        for step in curve:
            for measure in ("spearman", "spearman_absolute", "ssim"):
                assert getattr(step, measure) == pytest.approx(1, abs=1e-6)
    for curve in steps["saliency"].curves:
        assert curve[0].spearman == 1
        assert all(step.spearman < 0.9 for step in curve[2:])


@every_order
def test_steps_are_named_in_their_order(order: str) -> None:
    context = _context(classifier(), images()[0], "saliency")
    steps = _cascade(context, order=order, seeds=1)["saliency"]
    named = [("conv1",), ("conv2",), ("head",)]
    assert list(steps.stages) == [(), *(named[::-1] if order == "top_down" else named)]
    assert [len(curve) for curve in steps.curves] == [4]
    joined = _cascade(context, order=order, seeds=1, steps=2)["saliency"].stages
    assert sorted(path for step in joined for path in step) == ["conv1", "conv2", "head"]
    assert len(joined) == 3


def test_orders_end_in_the_same_random_network() -> None:
    """All weights are random in the end, in either order; independent steps keep the others."""
    context = _context(classifier(), images()[0], "saliency")
    down, up, alone = (
        _cascade(context, order=order, seeds=2, pictures=True)["saliency"]
        for order in ("top_down", "bottom_up", "independent")
    )
    assert torch.equal(down.pictures[-1], up.pictures[-1])
    assert torch.equal(alone.pictures[1], up.pictures[1])
    assert torch.equal(alone.pictures[3], down.pictures[1])
    assert not torch.equal(alone.pictures[-1], up.pictures[-1])
    trained_map = context.fields["saliency"].values
    for steps in (down, up, alone):
        assert torch.equal(steps.pictures[0], trained_map)
        assert len(steps.pictures) == 4
    assert len(down.chance) == len(up.chance) == 1
    assert alone.chance == ()


def test_the_last_map_is_that_of_a_network_randomized_by_hand() -> None:
    network, image = classifier(), images()
    steps = _cascade(_context(network, image[0], "saliency"), seeds=1, pictures=True)["saliency"]
    random = copied(Model(network))
    reinitialize(random.network, stages(random, image), 0)
    by_hand = explain(random, image, "saliency", CLASS_ONE)["saliency"].map[0]
    assert torch.equal(steps.pictures[-1], by_hand.double().sum(0))


def test_cascades_are_reproducible_and_seeds_differ() -> None:
    noisy = {"name": "smoothgrad", "of": "saliency", "samples": 2, "label": "noisy"}
    context = _context(classifier(), images()[0], "saliency", noisy)
    once, again = (_cascade(context, seeds=2) for _ in range(2))
    for name in once:
        assert once[name].curves == again[name].curves
        assert once[name].curves[0] != once[name].curves[1]
    smooth = _cascade(context, seeds=1, smooth=2)
    assert smooth["saliency"].curves != once["saliency"].curves
    assert smooth["noisy"].curves[0] == once["noisy"].curves[0]  # averaged over copies already


def test_the_area_is_that_of_the_mean_curve() -> None:
    context = _context(classifier(), images()[0], "saliency", EdgeDetector())
    field = context.fields["saliency"]
    result = value("parameter_randomization", field, context, seeds=2, similarity="spearman")
    curve = np.mean(result.facts["seeds"], axis=0)
    assert [y for _, y in result.curve] == pytest.approx(curve)
    assert result.value == pytest.approx(np.trapezoid(curve, dx=1 / 3))
    assert result.facts["last"] == pytest.approx(curve[-1])
    edge = value("parameter_randomization", context.fields["edge_detector"], context)
    assert edge.value == pytest.approx(1)
    assert edge.facts["random_networks"] == pytest.approx(1)


def test_similarities_that_do_not_exist_are_left_out() -> None:
    """A map of two voxels a side has no structural similarity: no score, rather than near 0."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).eval()
    context = _context(network, images(2, 1, 1, 2)[0], "saliency")
    field = context.fields["saliency"]
    said = reason("parameter_randomization", field, context, similarity="ssim")
    assert "too small" in said
    assert -1 <= value("parameter_randomization", field, context).value <= 1


def test_guided_backprop_ignores_the_weights_and_saliency_does_not() -> None:
    """On a trained network, as Adebayo et al. (2018) found."""
    network, batch = trained(), disks(3)
    unseen, classes = shapes(200, 998)
    assert float((network(unseen).argmax(1) == classes).float().mean()) > 0.95
    methods = ["saliency", "guided_backprop", EdgeDetector()]
    maps = explain(network, batch, methods, CLASS_ONE)
    for measure, gap in (("spearman", 0.3), ("ssim", 0.15)):
        metric = {"name": "parameter_randomization", "steps": 4, "seeds": 2, "similarity": measure}
        scores = evaluate(network, batch, maps, [metric], CLASS_ONE, controls=False)
        mean = {name: float(np.mean(scores.of(method=name).values())) for name in maps}
        assert mean["edge_detector"] == pytest.approx(1)
        assert mean["edge_detector"] > mean["guided_backprop"] + gap
        assert mean["guided_backprop"] > mean["saliency"] + gap
        assert mean["saliency"] < 0.35


def test_efficient_randomization_compares_the_disorder_of_histograms() -> None:
    context = _context(classifier(), images()[0], "saliency", EdgeDetector())
    result = value("efficient_parameter_randomization", context.fields["edge_detector"], context)
    assert result.value == pytest.approx(0, abs=1e-12)
    parameters = {"seeds": 1, "bins": 20}
    field = context.fields["saliency"]
    result = value("efficient_parameter_randomization", field, context, **parameters)
    random = copied(context.engine.model)
    reinitialize(random.network, stages(random, images()), 0)
    again = explain(random, images(), "saliency", CLASS_ONE)["saliency"].map[0, 0]
    disorder = []
    for values in (field.values, again):
        counts, _ = np.histogram(values.double().numpy(), bins=20)
        disorder.append(stats.entropy(counts))
    assert result.value == pytest.approx((disorder[1] - disorder[0]) / disorder[0])


class Opposed(nn.Module):
    """Two classes with opposite scores, and a third that looks at something else."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(36, generator=torch.Generator().manual_seed(0))
        other = torch.randn(36, generator=torch.Generator().manual_seed(1))
        self.weight = nn.Parameter(torch.stack([-weight, weight, other]))

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1) @ self.weight.T + torch.tensor([0.0, 0.0, -100.0])


def test_the_map_of_the_next_class_may_be_the_opposite() -> None:
    context = _context(Opposed(), images()[0], "saliency", EdgeDetector())
    result = value("random_logit", context.fields["saliency"], context)
    assert result.value == pytest.approx(-1)
    edge = value("random_logit", context.fields["edge_detector"], context)
    assert edge.value == pytest.approx(1)


def test_a_class_without_a_map_says_so() -> None:
    network = Opposed()
    with torch.no_grad():
        network.weight[0] = 0
    context = _context(network, images()[0], "saliency")
    said = reason("random_logit", context.fields["saliency"], context)
    assert said == "the map of the other class is constant or not finite"


def test_similarity_by_hand() -> None:
    values = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    assert similarity(values, values) == Similarity(*[pytest.approx(1)] * 4)
    scaled = similarity(values, 3 * values + 1)
    assert scaled.spearman == pytest.approx(1)
    assert scaled.ssim == pytest.approx(1)  # each by its own quantiles
    flipped = similarity(values, -values)
    assert flipped.spearman == pytest.approx(-1)
    assert flipped.spearman_absolute == pytest.approx(1)
    assert flipped.ssim < 0
    constant = similarity(values, torch.zeros(16, 16))
    assert all(math.isnan(getattr(constant, measure)) for measure in MEASURES)


def test_structure_is_compared_between_quantiles() -> None:
    first, second = torch.randn(2, 16, 16, dtype=torch.float64).cumsum(1).numpy()
    scaled = []
    for values in (first, second):
        low, high = np.quantile(values, [0.01, 0.99])
        scaled.append(np.clip((values - low) / (high - low), 0, 1))
    expected = structural_similarity(*scaled, win_size=7, data_range=1.0)
    result = similarity(torch.from_numpy(first), torch.from_numpy(second))
    assert result.ssim == pytest.approx(expected)


def test_gradients_of_maps_have_directions() -> None:
    """Stripes are alike if they run alike, whatever their sign."""
    wave = torch.sin(torch.arange(32.0))[None].expand(32, 32)
    tilted = torch.sin(torch.arange(32.0)[None] + 0.2 * torch.arange(32.0)[:, None])
    same, tilt, across = (similarity(wave, other).hog for other in (-wave, tilted, wave.T))
    assert same > 0.9
    assert same > tilt > across + 0.3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_maps_that_are_not_finite_are_like_none(bad: float) -> None:
    values = torch.randn(8, 8)
    broken = values.clone()
    broken[0, 0] = bad
    for pair in ((values, broken), (broken, values), (broken, broken)):
        assert all(math.isnan(getattr(similarity(*pair), measure)) for measure in MEASURES)


@pytest.mark.parametrize("rank", [2, 3])
def test_segmentations_keep_the_weights_of_the_trained_prediction(rank: int) -> None:
    network, image = segmenter(rank), images(rank)[0]
    context = explained(network, image, "saliency", target={"kind": "pixelwise", "label": 1})
    steps = _cascade(context, seeds=1)["saliency"]
    assert all(math.isfinite(step.spearman) for curve in steps.curves for step in curve)
