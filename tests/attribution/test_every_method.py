"""The whole registry over tasks, ranks, channels and batches."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from every_method import (
    CLASS_ONE,
    CONSTANT_ALONE,
    NAMES,
    STOCHASTIC,
    all_maps,
    cell_reaches_everywhere,
)
from networks import classifier, images, segmenter, untouched
from torch import Tensor, nn

from voxplain.attribution.methods import methods
from voxplain.records.sidecar import Sidecar

INPUT_MAPS = {
    "blur_integrated_gradients",
    "conditional_relevance",
    "deconvolution",
    "deep_lift",
    "deep_lift_shap",
    "excitation_backprop",
    "expected_gradients",
    "gradient_shap",
    "guided_backprop",
    "guided_grad_cam",
    "guided_integrated_gradients",
    "input_x_gradient",
    "integrated_gradients",
    "integrated_gradients_black_white",
    "layer_activation_guided_backprop",
    "lrp",
    "saliency",
    "smoothgrad",
    "vanilla_backprop",
    "vargrad",
}
ONE_CHANNEL = {
    "contrastive_excitation_backprop",
    "eigen_cam",
    "eigen_grad_cam",
    "elementwise_grad_cam",
    "full_grad",
    "grad_cam",
    "grad_cam_plus_plus",
    "gradient_times_image",
    "hires_cam",
    "layer_cam",
    "layer_grad_cam",
    "linear_approximation",
    "seg_grad_cam",
    "x_grad_cam",
}
LAYER_CHANNELS = {
    "internal_influence",
    "layer_activation",
    "layer_conductance",
    "layer_deep_lift",
    "layer_deep_lift_shap",
    "layer_gradient_shap",
    "layer_gradient_x_activation",
    "layer_integrated_gradients",
    "layer_lrp",
    "vanilla_layer_visualization",
}
COMPLETE = {
    "expected_gradients",
    "gradient_shap",
    "blur_integrated_gradients",
    "channel_share",
    "deep_lift",
    "deep_lift_shap",
    "guided_integrated_gradients",
    "integrated_gradients",
    "integrated_gradients_black_white",
    "kernel_shap",
    "shapley_exact",
    "shapley_value_sampling",
}
FLOWING = {
    "layer_gradient_shap",
    "layer_conductance",
    "layer_deep_lift",
    "layer_deep_lift_shap",
    "layer_integrated_gradients",
}


def test_the_registry_holds_the_methods_of_gradients_and_layers() -> None:
    assert set(NAMES) >= INPUT_MAPS | ONE_CHANNEL | LAYER_CHANNELS


EVERY_TRIPLE = [
    (task, rank, channels, batch)
    for task, rank, channels, batch in itertools.product(
        ("classifier", "segmenter"), (2, 3), (1, 4), (1, 3)
    )
    if ((task == "segmenter") + rank + (channels == 4) + (batch == 3)) % 2
]
"""Half of the combinations, in which any three of the four settings meet in every way."""


@pytest.mark.parametrize(("task", "rank", "channels", "batch"), EVERY_TRIPLE)
def test_every_method_everywhere(task: str, rank: int, channels: int, batch: int) -> None:
    build = {"classifier": classifier, "segmenter": segmenter}[task]
    network = build(rank, channels)
    inputs = images(rank, channels, batch)
    references = images(rank, channels, 6)[3:]
    target = CLASS_ONE if task == "classifier" else {"kind": "pixelwise", "label": 1}
    with untouched(network):
        attributions = all_maps(network, inputs, references, target)
    again = all_maps(network, inputs, references, target)
    other = all_maps(network, inputs, references, target, seed=1)
    size = inputs.shape[2:]
    for name, attribution in attributions.items():
        values = attribution.map
        assert values.dtype == torch.float32
        may_be_constant = channels == 1 and name in CONSTANT_ALONE
        assert may_be_constant or cell_reaches_everywhere(values), (
            f"{name} is constant or not finite"
        )
        assert tuple(values.shape) == (batch, _channels(name, values, channels), *size), name
        assert torch.equal(values, again[name].map), f"{name} differs between two runs"
        same = torch.equal(values, other[name].map)
        assert same is (name not in STOCHASTIC), f"{name} and the seed"


def _channels(name: str, values: Tensor, channels: int) -> int:
    """Number of channels of the methods listed above; any for other methods."""
    for names, count in ((INPUT_MAPS, channels), (ONE_CHANNEL, 1), (LAYER_CHANNELS, 6)):
        if name in names:
            return count
    return values.shape[1]


def test_facts_of_every_method() -> None:
    """A sidecar is complete, is JSON, and reads back."""
    attributions = all_maps(classifier(2, 2), images(2, 2), images(2, 2, 4)[1:])
    for name, attribution in attributions.items():
        sidecar = attribution[0].sidecar
        text = sidecar.model_dump_json()
        assert Sidecar.model_validate_json(text) == sidecar
        assert sidecar.method == name
        assert sidecar.meaning.endswith(".")
        assert sidecar.stream, name
        assert sidecar.target.in_words
        assert sidecar.cost.passes >= 1
        assert json.loads(text)["parameters"]["name"] == name
        if sidecar.sign in ("positive", "absolute"):
            assert float(attribution.map.min()) >= 0, name
        assert (sidecar.completeness is not None) is (name in COMPLETE), name
        assert (sidecar.flow is not None) is (name in FLOWING), name


@pytest.mark.parametrize("name", NAMES)
def test_every_method_says_what_it_is(name: str) -> None:
    chosen = methods.get(name)
    assert chosen.formula
    assert chosen.title() == name
    assert 15 < len(chosen.meaning()) < 140
    assert chosen.units
    assert chosen.model_json_schema()["properties"]["name"]["const"] == name


def test_other_rectifiers_and_norms() -> None:
    """Networks with other rectifiers, norms and poolings."""
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.InstanceNorm2d(4, affine=True),
        nn.LeakyReLU(0.1, inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.SiLU(),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.GroupNorm(2, 6),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    ).eval()
    with untouched(network):
        attributions = all_maps(network, images(2, 2, 2, size=8), images(2, 2, 5, size=8)[2:])
    for name, attribution in attributions.items():
        assert cell_reaches_everywhere(attribution.map), name
    assert max(attributions["deep_lift"].stats.completeness or [1.0]) < 1e-6
