"""Maps of images with zero background, odd sizes, ties, four classes and many references."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from harsh import (
    CLASSES,
    SHAPES,
    harsh_classifier,
    harsh_images,
    harsh_references,
    harsh_segmenter,
)
from networks import assert_close
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.metrics import evaluate
from voxplain.models.model import Model

ranks = pytest.mark.parametrize("rank", [2, 3])
EXACT = 1e-10


def the_map(network: Any, image: Tensor, method: Any, target: Any, **options: Any) -> Tensor:
    """The map of one method."""
    (found,) = explain(network, image, method, target, **options).values()
    return found.map


@ranks
def test_a_contrast_in_windows_keeps_all_its_terms(rank: int) -> None:
    network, image = harsh_segmenter(rank), harsh_images(rank).double()
    windowed = Model(network, window={"size": 4, "overlap": 0.5})
    pixelwise = [{"kind": "pixelwise", "label": label} for label in (1, 2, 3)]
    for first in (pixelwise[0], {"kind": "volume", "label": 1}):
        for second in pixelwise[1:]:
            contrast = {"kind": "contrast", "a": first, "b": second}
            both, a, b = (
                the_map(windowed, image, "saliency", one) for one in (contrast, first, second)
            )
            assert_close(both, a - b, EXACT)
            assert float(b.abs().max()) > 1e-3


@ranks
@pytest.mark.parametrize("kind", ["pixelwise", "volume"])
def test_masks_in_windows_see_both_sides_of_a_contrast(rank: int, kind: str) -> None:
    network, image = harsh_segmenter(rank), harsh_images(rank).double()
    windowed = Model(network, window={"size": 4, "overlap": 0.5})
    boxes = {"name": "occlusion", "window": 3, "stride": 3, "fill": "maximum"}
    first, second = ({"kind": kind, "label": label} for label in (1, 2))
    contrast = {"kind": "contrast", "a": first, "b": second}
    both, a, b = (the_map(windowed, image, boxes, one) for one in (contrast, first, second))
    assert_close(both, a - b, EXACT)
    assert float(b.abs().max()) > 1e-3


@ranks
def test_a_layer_path_in_windows_starts_at_the_activation_of_the_baseline(rank: int) -> None:
    """Window by window, by hand: the mean gradient on the path times the whole change."""
    network, image = harsh_segmenter(rank), harsh_images(rank).double()
    model = Model(network, window={"size": 4, "overlap": 0.5, "blend": "constant"})
    spec = {"name": "layer_integrated_gradients", "layers": ["conv1"], "steps": 4}
    method = {**spec, "quadrature": "midpoint", "baseline": "maximum"}
    found = the_map(model, image, method, {"kind": "pixelwise", "label": 1})
    layout = model.layout(image[0])
    assert layout is not None
    predicted = (model.output(image)[0].argmax(0) == 1).double()
    baseline = image.amax(dim=tuple(range(2, 2 + rank)), keepdim=True).expand_as(image)
    expected = torch.zeros(5, *SHAPES[rank], dtype=torch.float64)
    for position in layout.positions:
        start, end = (
            network.conv1(layout.cut(whole[0], [position])).detach() for whole in (baseline, image)
        )
        weights = layout.weight(position) * predicted[layout.box(position)]
        for along in (0.125, 0.375, 0.625, 0.875):
            point = (start + along * (end - start)).requires_grad_(True)
            score = (network[1:](point)[0, 1] * weights).sum()
            (gradient,) = torch.autograd.grad(score, point)
            expected[layout.region(position)] += (gradient * (end - start))[0] / 4
    assert_close(found[0], expected, EXACT)


@ranks
def test_guided_integrated_gradients_leave_out_what_equals_the_baseline(rank: int) -> None:
    """A margin of zeros changes nothing, although the score has a slope there."""
    margin = 3
    inner = (..., *(slice(margin, -margin),) * rank)

    class WithMargin(nn.Module):
        def __init__(self, network: nn.Module, slopes: Tensor) -> None:
            super().__init__()
            self.network, self.slopes = network, slopes

        def forward(self, image: Tensor) -> Tensor:
            return self.network(image[inner]) + (image * self.slopes).flatten(1).sum(1)[:, None]

    network, image = harsh_classifier(rank), harsh_images(rank).double()
    method = {"name": "guided_integrated_gradients", "steps": 7}
    alone = the_map(network, image, method, 1)
    padded = nn.functional.pad(image, [margin] * 2 * rank)
    slopes = torch.linspace(0, 0.01, padded.numel()).double().view_as(padded)
    slopes[inner] = 0
    assert_close(the_map(WithMargin(network, slopes), padded, method, 1)[inner], alone, EXACT)
    assert not alone[image == 0].any()


@ranks
@pytest.mark.parametrize("memory", [1, None])
def test_deep_lift_shap_is_the_mean_over_all_references(rank: int, memory: int | None) -> None:
    network, image = harsh_classifier(rank), harsh_images(rank).double()
    references = harsh_references(rank).double()
    for count in (4, 9, 20):
        spec = {"name": "deep_lift_shap", "references": count}
        found = explain(network, image, spec, 2, references=references, memory=memory)
        used = references[:count]
        singles = [
            the_map(network, image, {"name": "deep_lift", "baseline": one}, 2) for one in used
        ]
        assert_close(found["deep_lift_shap"].map, torch.stack(singles).mean(dim=0), EXACT)
        with torch.no_grad():
            scores = network(used)[:, 2]
        stats = found["deep_lift_shap"].stats
        assert stats.baseline_scores == pytest.approx([float(scores.mean())], rel=1e-9)
        assert stats.completeness == pytest.approx([0], abs=1e-9)


@ranks
def test_integrated_gradients_of_a_batch_are_complete_for_each_class(rank: int) -> None:
    network, images = harsh_classifier(rank), harsh_images(rank, 5).double()
    for label in range(CLASSES):
        found = explain(network, images, {"name": "integrated_gradients", "steps": 200}, label)
        sums = found["integrated_gradients"].map.flatten(1).sum(dim=1)
        with torch.no_grad():
            change = (network(images) - network(torch.zeros_like(images)))[:, label]
        assert_close(sums, change, 2e-3)


@ranks
def test_occlusion_by_hand(rank: int) -> None:
    """Windows that do not fit the image, values below zero, and a fill that is not zero."""
    network, image = harsh_classifier(rank), harsh_images(rank).double()
    window, stride, fill = 3, 2, -0.25
    spec = {"name": "occlusion", "window": window, "stride": stride}
    found = the_map(network, image, {**spec, "fill": {"kind": "constant", "value": fill}}, 3)
    shape = SHAPES[rank]
    total, count = torch.zeros(shape).double(), torch.zeros(shape).double()
    starts = [range(0, -(-(side - window) // stride) * stride + 1, stride) for side in shape]
    with torch.no_grad():
        score = network(image)[0, 3]
        for corner in itertools.product(*starts):
            box = tuple(slice(start, start + window) for start in corner)
            changed = image.clone()
            changed[(..., *box)] = fill
            total[box] += score - network(changed)[0, 3]
            count[box] += 1
    assert_close(found[0, 0], total / count, EXACT)


@ranks
def test_maps_of_images_beside_each_other_are_those_of_each_alone(rank: int) -> None:
    network, images = harsh_classifier(rank), harsh_images(rank, 3).double()
    for name in ("guided_integrated_gradients", "occlusion", "lrp", "grad_cam", "kernel_shap"):
        together = the_map(network, images, name, 1)
        for row, image in enumerate(images):
            assert_close(together[row], the_map(network, image[None], name, 1)[0], EXACT, name)


@ranks
def test_infidelity_is_finite_where_the_intensity_is_zero(rank: int) -> None:
    network, image = harsh_classifier(rank), harsh_images(rank).double()
    (found,) = explain(network, image, "input_x_gradient", 1).values()
    result = evaluate(network, image, {"input_x_gradient": found}, ["infidelity"], 1)
    values = [score.value for score in result]
    assert values
    assert all(value is not None and value == value for value in values)


def test_half_precision_is_summed_up_in_float32() -> None:
    """300 equal parts: summed up in bfloat16 they would stop at 256 times the first."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2)).eval()
    image = torch.rand(1, 6)
    spec = {"name": "layer_integrated_gradients", "layers": ["0"], "steps": 300}
    method = {**spec, "quadrature": "midpoint"}
    exact = the_map(network, image, method, 1)
    half = the_map(Model(network, precision="bfloat16"), image, method, 1, memory=1)
    assert half.dtype == torch.float32
    assert_close(half, exact, 2e-2)
