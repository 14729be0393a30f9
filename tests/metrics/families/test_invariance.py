"""Input invariance: gradients stay, products with the intensity move, whatever the network."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from metric_cases import LinearClasses, bright, explained, metric_context, reason, value
from networks import classifier, convolution, images, segmenter, untouched
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.engine.baselines import intensity_range
from voxplain.metrics.curves import correlation
from voxplain.metrics.queries.input_shift import shifted_input_network
from voxplain.models.model import Model

METRIC = "input_invariance"
SCORE = {"kind": "class_score", "label": 1}
SEGMENT = {"kind": "pixelwise", "label": 1}
every_rank = pytest.mark.parametrize("rank", [2, 3])


@every_rank
def test_a_linear_score_by_hand(rank: int) -> None:
    image = bright(rank, 2, 4) - 1
    network = LinearClasses(tuple(image.shape))
    fixed = {"name": "integrated_gradients", "baseline": 0.0, "label": "from zero"}
    moving = {"name": "integrated_gradients", "baseline": "minimum", "label": "from minimum"}
    context = explained(network, image, "saliency", "input_x_gradient", fixed, moving)
    weight, constant = network.weight.detach()[1], 0.1 * intensity_range(image)
    by_hand = 1 - correlation((weight * image).sum(0), (weight * (image + constant)).sum(0))
    assert by_hand > 1e-3
    by_method = {name: value(METRIC, f, context).value for name, f in context.fields.items()}
    assert by_method["saliency"] == pytest.approx(0, abs=1e-12)
    assert by_method["from minimum"] == pytest.approx(0, abs=1e-12)  # which moves with the image
    assert by_method["input_x_gradient"] == pytest.approx(by_hand, rel=1e-9)
    assert by_method["from zero"] == pytest.approx(by_hand, rel=1e-9)


@every_rank
@pytest.mark.parametrize(("build", "target"), [(classifier, SCORE), (segmenter, SEGMENT)])
def test_gradients_of_a_network_stay(rank: int, build: Any, target: Any) -> None:
    network, image = build(rank, 2).double(), images(rank, 2)[0].double()
    with untouched(network):
        context = explained(network, image, "saliency", "input_x_gradient", target=target)
        by_method = {name: value(METRIC, f, context).value for name, f in context.fields.items()}
    assert by_method["saliency"] == pytest.approx(0, abs=1e-10)
    assert by_method["input_x_gradient"] > 1e-4


@every_rank
def test_windows_shift_as_the_whole(rank: int) -> None:
    torch.manual_seed(0)
    conv = convolution(rank)
    network = nn.Sequential(conv(1, 3, 1), nn.Tanh(), conv(3, 2, 1)).double()
    image, values = images(rank, 1, 1, 8)[0].double(), []
    for window in (None, {"size": 5, "overlap": 0.4}):
        model = Model(network, window=window)
        context = explained(model, image, "input_x_gradient", target=SEGMENT)
        values.append(value(METRIC, context.fields["input_x_gradient"], context).value)
    assert values[0] == pytest.approx(values[1], rel=1e-9)
    assert values[0] > 0


def test_other_images_of_the_data_are_shifted_too() -> None:
    image = bright(2, 1, 6)
    others = bright(2, 5, 6, seed=1)[:, None]
    method = {"name": "expected_gradients", "label": "expected"}
    network = classifier().double()
    context = explained(network, image, method, target=SCORE, references=others)
    assert value(METRIC, context.fields["expected"], context).value < 1e-10


class _Branches(nn.Module):
    """A residual block whose branches read the image, with other paddings and groups."""

    def __init__(self, rank: int, own: dict[str, Any], other: dict[str, Any]) -> None:
        super().__init__()
        conv = convolution(rank)
        self.main, self.short = conv(4, 4, 3, **own), conv(4, 4, **other)
        self.head = conv(4, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(torch.tanh(self.main(image)) + self.short(image))


PADDED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "zeros": ({"padding": 1}, {"kernel_size": 1}),
    "no bias": ({"padding": 1, "bias": False}, {"kernel_size": 1}),
    "same": ({"padding": "same", "dilation": 2}, {"kernel_size": 2, "padding": "same"}),
    "valid": ({"padding": "valid"}, {"kernel_size": 3}),
    "groups": ({"padding": 1, "groups": 2}, {"kernel_size": 1, "groups": 4}),
    "reflect": ({"padding": 1, "padding_mode": "reflect"}, {"kernel_size": 1}),
    "stride": ({"padding": 1, "stride": 2}, {"kernel_size": 1, "stride": 2}),
}


@every_rank
@pytest.mark.parametrize("name", PADDED)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_the_first_biases_absorb_the_constant(name: str, rank: int) -> None:
    torch.manual_seed(0)
    model = Model(_Branches(rank, *PADDED[name]).double())
    image = images(rank, 4, 2, 6).double()
    constant = torch.tensor([0.3, -2.0, 0.0, 1.0]).view(4, *(1,) * rank).double()
    with untouched(model.network):
        shifted = shifted_input_network(model, image[:1], constant)
    assert torch.allclose(shifted(image + constant), model(image), atol=1e-12)
    assert not shifted.network._forward_pre_hooks  # nothing is subtracted


@every_rank
@pytest.mark.parametrize("kind", ["BatchNorm", "InstanceNorm"])
def test_a_norm_absorbs_the_constant(kind: str, rank: int) -> None:
    """A batch norm in its running mean; an instance norm subtracts the mean of the image anyway."""
    torch.manual_seed(0)
    network = nn.Sequential(getattr(nn, f"{kind}{rank}d")(2), convolution(rank)(2, 2, 3, padding=1))
    network(images(rank, 2, 8) * 3 + 1)
    model, image = Model(network.double().eval()), images(rank, 2, 2).double()
    constant = torch.tensor([0.3, -2.0]).view(2, *(1,) * rank).double()
    with untouched(model.network):
        shifted = shifted_input_network(model, image[:1], constant)
    assert torch.allclose(shifted(image + constant), model(image), atol=1e-12)
    assert not shifted.network._forward_pre_hooks


class _Skipping(nn.Module):
    """The image goes past the first convolution, whose bias cannot absorb everything."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return torch.tanh(self.conv(image)) + image.exp()


def test_where_biases_cannot_the_constant_is_subtracted() -> None:
    torch.manual_seed(0)
    model, image = Model(_Skipping().double()), images(2, 1, 2).double()
    constant = torch.full((1, 1, 1), 0.7, dtype=torch.float64)
    shifted = shifted_input_network(model, image[:1], constant)
    assert torch.allclose(shifted(image + constant), model(image), atol=1e-12)
    assert len(shifted.network._forward_pre_hooks) == 1
    assert torch.equal(shifted.network.conv.bias, model.network.conv.bias)  # type: ignore[union-attr]
    double = copy.deepcopy(shifted.network)  # as methods in float64 do
    assert torch.allclose(double(image + constant), model(image), atol=1e-12)
    context = explained(model, image[0], "saliency", "input_x_gradient", target=SEGMENT)
    by_method = {name: value(METRIC, f, context).value for name, f in context.fields.items()}
    assert by_method["saliency"] < 1e-12 < by_method["input_x_gradient"]


@pytest.mark.parametrize("method", ["lrp", "excitation_backprop", "grad_cam", "deep_lift"])
def test_rules_and_layers_meet_the_network_that_a_person_would_write(method: str) -> None:
    """The bias b - W c by hand, for a convolution without padding."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Softplus(), nn.Flatten()
    )
    network.append(nn.Linear(48, 3))
    network, image = network.double().eval(), images(2, 1, 1, 8)[0].double()
    context = explained(network, image, method, target=SCORE)
    field = context.fields[method]
    constant = 0.1 * intensity_range(image)
    by_hand = copy.deepcopy(network)
    with torch.no_grad():
        by_hand[0].bias -= by_hand[0].weight.sum(dim=(1, 2, 3)) * float(constant)
    expected = explain(by_hand, (image + constant)[None], method, SCORE)[method].map[0]
    expected = 1 - correlation(field.values, expected.double().sum(dim=0))
    assert value(METRIC, field, context).value == pytest.approx(expected, abs=1e-9)


def test_cells_stay_where_they_are_when_the_padding_changes() -> None:
    network, image = classifier().double(), images()[0].double()
    method = {"name": "grad_cam", "layer": "conv1", "label": "cam"}
    context = explained(network, image, method, target=SCORE)
    assert value(METRIC, context.fields["cam"], context).value < 1e-10


def test_missing_inputs_are_named() -> None:
    constant = torch.full((1, 4, 4), 0.7, dtype=torch.float64)
    context = explained(LinearClasses((1, 4, 4)), constant, "saliency")
    assert "constant" in reason(METRIC, context.fields["saliency"], context)
    context = metric_context(
        LinearClasses((1, 4, 4)), bright(2, 1, 4), {"given": torch.randn(1, 4, 4)}
    )
    assert "this map has no method" in reason(METRIC, context.fields["given"], context)


@pytest.mark.filterwarnings("ignore:the window")
def test_padding_to_a_window_is_no_part_of_the_image() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1)).double()
    context = explained(
        Model(network, window={"size": 8}), bright(2, 1, 6), "input_x_gradient", target=SEGMENT
    )
    said = reason(METRIC, context.fields["input_x_gradient"], context)
    assert "smaller than a window" in said
