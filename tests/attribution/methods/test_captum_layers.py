"""Layer maps against captum, in 2-D and 3-D, for classifiers and segmenters."""

from __future__ import annotations

from typing import Any

import captum.attr as peer
import numpy as np
import pytest
import torch
from captum_cases import Case, build, every_case
from networks import assert_close
from test_captum_inputs import SAMPLES, inject, our_draws
from torch import Tensor, nn

LAYERS = ("conv1", "act1", "conv2", "act2")


def check(
    case: Case,
    method: dict[str, Any],
    attribute: Any,
    tolerance: float = 1e-5,
    layers: tuple[str, ...] = LAYERS,
    sides: tuple[str, ...] = ("output", "input"),
) -> None:
    """Layer maps at the outputs and the inputs of all layers.

    Args:
        case: Network and images.
        method: Without layers.
        attribute: From a network, its layer, an image and whether its input is meant.
        tolerance: Relative to the largest value.
        layers: Paths.
        sides: As in the methods.
    """
    for layer in layers:
        for side in sides:

            def theirs(
                net: nn.Module, x: Tensor, layer: str = layer, enters: bool = side == "input"
            ) -> Tensor:
                return attribute(net, case.layer(net, layer), x, enters)

            case.compare({**method, "layers": layer, "side": side}, theirs, tolerance)


@every_case
def test_at_the_image(task: str, rank: int) -> None:
    case = build(task, rank)
    check(
        case,
        {"name": "layer_activation"},
        lambda net, layer, x, enters: peer.LayerActivation(net, layer).attribute(
            x, attribute_to_layer_input=enters
        ),
        1e-6,
    )
    check(
        case,
        {"name": "layer_gradient_x_activation"},
        lambda net, layer, x, enters: peer.LayerGradientXActivation(net, layer).attribute(
            x, target=0, attribute_to_layer_input=enters
        ),
        1e-6,
    )
    check(
        case,
        {"name": "linear_approximation"},
        lambda net, layer, x, enters: (
            peer.LayerGradientXActivation(net, layer)
            .attribute(x, target=0, attribute_to_layer_input=enters)
            .sum(1, keepdim=True)
        ),
    )
    check(
        case,
        {"name": "layer_grad_cam"},
        lambda net, layer, x, enters: peer.LayerGradCam(net, layer).attribute(
            x, target=0, attribute_to_layer_input=enters
        ),
    )


@every_case
def test_layer_gradients(task: str, rank: int) -> None:
    """In captum they are gradient times activation over activation."""
    case = build(task, rank)

    def attribute(net: nn.Module, layer: nn.Module, x: Tensor, _: bool) -> Tensor:
        product = peer.LayerGradientXActivation(net, layer).attribute(x, target=0)
        return product / peer.LayerActivation(net, layer).attribute(x)

    method = {"name": "vanilla_layer_visualization"}
    check(case, method, attribute, 1e-4, ("conv1", "conv2"), ("output",))


def test_layers_without_places() -> None:
    """Layers without spatial axes: their maps are ``(B, K, 1, 1)``."""
    case = build("classifier", 2)
    activation = case.captum(
        lambda net, x: peer.LayerActivation(net, case.layer(net, "head")).attribute(x)
    )
    actual = case.ours({"name": "layer_activation", "layers": "head"})
    assert_close(actual, activation[..., None, None], 1e-6)
    products = case.captum(
        lambda net, x: peer.LayerGradientXActivation(net, case.layer(net, "head")).attribute(
            x, target=0
        )
    )
    actual = case.ours({"name": "layer_grad_cam", "layers": "head"})
    assert_close(actual, products.sum(1)[:, None, None, None])


@every_case
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("gauss_legendre", "gausslegendre"), ("right", "riemann_right"), ("left", "riemann_left")],
)
def test_internal_influence(task: str, rank: int, ours: str, theirs: str) -> None:
    case = build(task, rank)
    baseline = case.references[1]
    check(
        case,
        {"name": "internal_influence", "steps": 24, "quadrature": ours, "baseline": baseline},
        lambda net, layer, x, enters: peer.InternalInfluence(net, layer).attribute(
            x,
            baseline[None],
            target=0,
            n_steps=24,
            method=theirs,
            attribute_to_layer_input=enters,
        ),
        1e-4,
    )


@every_case
def test_layer_conductance_with_many_steps(task: str, rank: int) -> None:
    """Captum takes gradients at the ends of each piece, so only the limits are equal."""
    case = build(task, rank)
    check(
        case,
        {"name": "layer_conductance", "steps": 300, "quadrature": "midpoint"},
        lambda net, layer, x, enters: peer.LayerConductance(net, layer).attribute(
            x, target=0, n_steps=600, method="riemann_right", attribute_to_layer_input=enters
        ),
        1e-2,
        ("conv1", "act2"),
        ("output",),
    )


@every_case
def test_layer_deep_lift(task: str, rank: int) -> None:
    """At the input of a rectifier captum gives the plain gradient, which is not complete."""
    case = build(task, rank)
    baseline = case.references[0]
    for layers, sides in ((LAYERS, ("output",)), (("conv1", "conv2"), ("input",))):
        check(
            case,
            {"name": "layer_deep_lift", "baseline": baseline},
            lambda net, layer, x, enters: peer.LayerDeepLift(net, layer).attribute(
                x, baseline[None], target=0, attribute_to_layer_input=enters
            ),
            1e-4,
            layers,
            sides,
        )
        check(
            case,
            {"name": "layer_deep_lift_shap"},
            lambda net, layer, x, enters: peer.LayerDeepLiftShap(net, layer).attribute(
                x, case.references, target=0, attribute_to_layer_input=enters
            ),
            1e-4,
            layers,
            sides,
        )


@every_case
def test_layer_gradient_shap_with_the_same_draws(
    task: str, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = build(task, rank)

    def attribute(net: nn.Module, layer: nn.Module, x: Tensor, enters: bool) -> Tensor:
        inject(monkeypatch, case, our_draws(case, x, 0.1), x)
        shap = peer.LayerGradientShap(net, layer)
        return shap.attribute(
            x,
            case.references,
            n_samples=SAMPLES,
            stdevs=1.0,
            target=0,
            attribute_to_layer_input=enters,
        )

    check(case, {"name": "layer_gradient_shap", "samples": SAMPLES, "sigma": 0.1}, attribute)


@every_case
def test_unit_targets_are_neuron_methods(task: str, rank: int) -> None:
    """A unit of a layer as the target equals a neuron method of captum."""
    case = build(task, rank)
    place = (3, 2, 1)[:rank]
    unit = {"kind": "unit", "layer": "conv2", "channel": 1, "position": place}
    place = tuple(min(at, 2) for at in place)
    unit["position"] = place
    neuron = Case(case.network, case.images, case.references, unit, case.summed)
    selector = (1, *place)
    neuron.compare(
        {"name": "saliency"},
        lambda net, x: peer.NeuronGradient(net, case.layer(net, "conv2")).attribute(x, selector),
    )
    neuron.compare(
        {"name": "guided_backprop"},
        lambda net, x: peer.NeuronGuidedBackprop(net, case.layer(net, "conv2")).attribute(
            x, selector
        ),
    )
    neuron.compare(
        {"name": "integrated_gradients", "steps": 10},
        lambda net, x: peer.NeuronIntegratedGradients(net, case.layer(net, "conv2")).attribute(
            x, selector, n_steps=10
        ),
    )
    neuron.compare(
        {"name": "deep_lift"},
        lambda net, x: peer.NeuronDeepLift(net, case.layer(net, "conv2")).attribute(x, selector),
        1e-4,
    )
    neuron.compare(
        {"name": "layer_conductance", "layers": "conv1", "steps": 300, "quadrature": "midpoint"},
        lambda net, x: _conductance_towards(net, case, x, selector),
        1e-2,
    )


def _conductance_towards(
    net: nn.Module, case: Case, x: Tensor, selector: tuple[int, ...]
) -> Tensor:
    """Conductance of conv1 for one unit of conv2, which is made the output."""
    inner = nn.Sequential(*list(case.network.children())[: _index(case.network, "conv2") + 1])

    class Selected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, image: Tensor) -> Tensor:
            return self.inner(image)[(slice(None), *selector)][:, None]

    net = Selected()
    conductance = peer.LayerConductance(net, inner[0])
    return conductance.attribute(x, target=0, n_steps=600, method="riemann_right")


def _index(network: nn.Module, name: str) -> int:
    return [path for path, _ in network.named_children()].index(name)


@every_case
def test_layer_activation_guided_backprop(task: str, rank: int) -> None:
    """The published neuron method, summed over the positions of the strongest channel."""
    case = build(task, rank)
    with torch.no_grad():
        before = nn.Sequential(*list(case.network.children())[: _index(case.network, "act2") + 1])
        strongest = before(case.images).flatten(2).mean(2).argmax(1).tolist()
    picks = iter(np.array(strongest))

    def attribute(net: nn.Module, x: Tensor) -> Tensor:
        channel = int(next(picks))
        neuron = peer.NeuronGuidedBackprop(net, case.layer(net, "act2"))
        return neuron.attribute(x, lambda value: value[:, channel].flatten(1).sum(1))

    case.compare({"name": "layer_activation_guided_backprop", "layer": "act2"}, attribute)
