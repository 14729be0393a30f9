"""Robustness: linear scores do not move, the same method explains again, draws are its own."""

from __future__ import annotations

import math

import pytest
import torch
from metric_cases import LinearClasses, bright, explained, metric_context, reason, value
from networks import Cubes, classifier, images, segmenter
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.engine.method import parse_method
from voxplain.engine.variants.perturbations import MEDICAL, Rotation, Shift, UniformNoise
from voxplain.errors import ConfigError
from voxplain.image import Image
from voxplain.metrics import MapField, parse_metric
from voxplain.metrics.families.robustness import Neighbors, _step

SENSITIVE = (
    "max_sensitivity",
    "average_sensitivity",
    "local_lipschitz",
    "relative_input_stability",
    "relative_output_stability",
)
SCORE = {"kind": "class_score", "label": 1}


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("metric", SENSITIVE)
def test_the_gradient_of_a_linear_score_never_moves(metric: str, rank: int) -> None:
    image = bright(rank, 2, 4)
    context = explained(LinearClasses(tuple(image.shape)), image, "saliency", "input_x_gradient")
    assert value(metric, context.fields["saliency"], context).value == 0
    assert value(metric, context.fields["input_x_gradient"], context).value > 0


def test_sensitivities_by_hand() -> None:
    """Input x gradient of a linear score moves as w e does."""
    image = bright(2, 1, 4)
    network = LinearClasses(tuple(image.shape))
    context = explained(network, image, "input_x_gradient")
    field, weight = context.fields["input_x_gradient"], network.weight.detach()[1]
    noise = [
        UniformNoise(0.02).changed(image, context.input.key, draw) - image for draw in range(8)
    ]
    moved = [float((weight * e).norm()) for e in noise]
    ratios = [size / float((weight * image).norm()) for size in moved]
    values = dict.fromkeys(SENSITIVE, 0.0)
    for metric in values:
        values[metric] = value(metric, field, context).value
    assert values["max_sensitivity"] == pytest.approx(max(ratios), rel=1e-4)
    assert values["average_sensitivity"] == pytest.approx(sum(ratios) / 8, rel=1e-4)
    slopes = [size / float(e.norm()) for size, e in zip(moved, noise, strict=True)]
    assert values["local_lipschitz"] == pytest.approx(max(slopes), rel=1e-4)
    inputs = [r / float(e.norm() / image.norm()) for r, e in zip(ratios, noise, strict=True)]
    assert values["relative_input_stability"] == pytest.approx(max(inputs), rel=1e-4)
    scores = [abs(float((weight * e).sum()) / context.score) for e in noise]
    outputs = [r / max(s, 1e-6) for r, s in zip(ratios, scores, strict=True)]
    assert values["relative_output_stability"] == pytest.approx(max(outputs), rel=1e-4)


def test_the_method_of_the_map_explains_the_neighbors() -> None:
    """Other libraries explain neighbors with defaults: another method."""
    image = bright(2, 1, 4)
    method = {"name": "integrated_gradients", "baseline": 0.4, "steps": 3, "label": "mine"}
    context = explained(Cubes(), image, method, "integrated_gradients", target=SCORE)
    sensitivity = value("max_sensitivity", context.fields["mine"], context).value

    def map_of(image: Tensor) -> Tensor:
        return explain(Cubes(), image[None], method, SCORE)["mine"].map[0].double()

    by_hand = []
    for draw in range(8):
        moved = map_of(UniformNoise(0.02).changed(image, context.input.key, draw))
        by_hand.append(float((moved - map_of(image)).norm() / map_of(image).norm()))
    assert sensitivity == pytest.approx(max(by_hand), rel=1e-5)
    plain = value("max_sensitivity", context.fields["integrated_gradients"], context).value
    assert plain != pytest.approx(sensitivity, rel=1e-2)


def test_stochastic_methods_keep_their_draws() -> None:
    """Their noise would count as instability: SmoothGrad of a linear score stays where it is."""
    image = bright(2, 1, 4)
    smooth = {"name": "smoothgrad", "of": "input_x_gradient", "samples": 3, "label": "smooth"}
    network = LinearClasses(tuple(image.shape))
    context = explained(network, image, smooth, "input_x_gradient")
    sensitivity = value("max_sensitivity", context.fields["smooth"], context).value
    plain = value("max_sensitivity", context.fields["input_x_gradient"], context).value
    assert sensitivity < 2 * plain  # other draws of sigma 0.15 would move it several times as much


class Blurry(nn.Module):
    """A dense score that moves with the image: one convolution, summed where class 1 wins."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        conv = nn.Conv2d if rank == 2 else nn.Conv3d
        self.layers = nn.Sequential(conv(1, 3, 3, padding=1), nn.Tanh(), conv(3, 2, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


@pytest.mark.parametrize("rank", [2, 3])
def test_maps_of_a_moved_image_move_back(rank: int) -> None:
    """A shift moves target and map with it, so that nothing is lost but the border."""
    torch.manual_seed(0)
    network, image = Blurry(rank).double(), torch.zeros(1, *(16,) * rank).double()
    image[(0, *(slice(6, 10),) * rank)] = bright(rank, 1, 4)[0]
    target = {"kind": "region", "label": 1, "voxel": (7,) * rank}
    context = explained(network, image, "input_x_gradient", target=target)
    steps = context.run_query(Neighbors(Shift(1), rank))["input_x_gradient"]
    assert all(step.map < 1e-5 for step in steps)
    assert all(step.rank > 0.999 for step in steps)
    steps = context.run_query(Neighbors(Rotation(2.0), 2))["input_x_gradient"]
    assert all(0 < step.map < 0.5 for step in steps)


def test_medical_stability_names_every_change() -> None:
    network, image = segmenter(), images()[0]
    context = explained(network, image, "saliency", target={"kind": "pixelwise", "label": 1})
    result = value("medical_stability", context.fields["saliency"], context)
    assert set(result.facts) == set(MEDICAL)
    assert result.value == pytest.approx(sum(result.facts.values()) / len(MEDICAL))
    assert result.facts["ct_noise"] > 0.9


def test_a_map_without_a_method_has_no_robustness() -> None:
    image = bright(2, 1, 4)
    context = metric_context(
        LinearClasses(tuple(image.shape)), image, {"given": torch.randn(1, 4, 4)}
    )
    for metric in (*SENSITIVE, "medical_stability"):
        assert "this map has no method" in reason(metric, context.fields["given"], context)


def test_a_constant_image_has_no_neighbors() -> None:
    image = torch.full((1, 4, 4), 0.7, dtype=torch.float64)
    context = explained(LinearClasses(tuple(image.shape)), image, "saliency")
    for metric in SENSITIVE:
        assert "constant" in reason(metric, context.fields["saliency"], context)


def test_one_set_of_neighbors_serves_all_maps_and_metrics() -> None:
    context = explained(classifier(), images()[0], "saliency", "input_x_gradient")
    for metric in SENSITIVE:
        for field in context.fields.values():
            assert math.isfinite(value(metric, field, context, draws=3).value)
    keys = [key for key in context._cache if isinstance(key, tuple)]
    assert len(keys) == 1
    assert isinstance(next(iter(context.fields.values())), MapField)


@pytest.mark.parametrize("rank", [2, 3])
def test_neighbors_are_rotated_in_physical_space(rank: int) -> None:
    """Rows of 3 mm: the query gives the rotation the size of the voxels."""
    spacing = (3.0, 1.0, 1.0)[:rank]
    image = Image.from_array(bright(rank, 1, 8).float(), spacing)
    network = Cubes()
    field = explained(network, image.data, "saliency", target=SCORE).fields["saliency"]
    context = metric_context(network, image, {"saliency": field.map}, target=SCORE)
    context.methods = (parse_method("saliency"),)
    query = Neighbors(Rotation(10.0), 1)
    (step,) = context.run_query(query)["saliency"]
    turned = Rotation(10.0, spacing).changed(image.data, "", 0)
    assert step.image == pytest.approx(float((turned - image.data).norm()), rel=1e-5)


def test_an_unknown_change_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"changes.*'noise', 'shift'"):
        parse_metric({"name": "medical_stability", "changes": ["tilt"]})


def test_a_step_is_relative_to_what_was_there_before() -> None:
    original, returned = torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 10.0]])
    image, neighbor = torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, 5.0]])
    for before, after in ((2.0, 3.0), (-2.0, -1.0), (-4.0, 4.0)):
        step = _step(original, returned, image, neighbor, before, after)
        assert (step.map, step.absolute) == (6 / 5, 6)
        assert (step.image, step.relative_image) == (3, 1.5)
        assert step.score == abs(after - before) / abs(before)
