"""Synthesis against closed forms, alone and together, by seed, in words where it cannot be."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from networks import untouched
from synthesis_cases import deeper, images, network, one_slice
from torch import Tensor, nn

from voxplain.errors import ConfigError, ModelError, VoxplainWarning
from voxplain.grid import Grid
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.synthesis import measure, synthesis_methods, synthesize

FEW: dict[str, dict[str, Any]] = {
    "activation_atlas": {"steps": 3, "places": 8, "cells": 2, "embedding": "pca"},
    "activation_grid": {"steps": 3, "pictures_at_most": 4},
    "activation_maximization": {"steps": 4},
    "deep_dream": {"steps": 3, "octaves": 2},
    "feature_accentuation": {"steps": 4},
    "feature_visualization": {"steps": 4},
    "inverted_representation": {"steps": 4},
    "layer_visualization": {"steps": 4},
}
SEVERAL = ("activation_atlas",)
"""Methods that look at several images."""


def asked(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, **FEW[name], **more}


class LinearUnit(nn.Module):
    """One unit: the mean of weights times voxels."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, image: Tensor) -> Tensor:
        return (self.weights * image).flatten(1).mean(dim=1, keepdim=True)


@pytest.mark.parametrize("rank", [2, 3])
def test_the_optimum_of_a_linear_unit_is_proportional_to_its_weights(rank: int) -> None:
    shape = (6, 5, 4)[:rank]
    weights = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    data = [torch.randn(1, *shape, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    cases = [Image.from_array(each, spacing=1.0) for each in data]
    method = {
        "name": "activation_maximization",
        "parametrization": {"kind": "pixel", "bounded": False},
        "regularization": {"l2": 200.0},
        "steps": 600,
        "rate": 0.02,
    }
    (found,) = synthesize(LinearUnit(weights), cases, method, 1).values()
    cosine = nn.functional.cosine_similarity(found.image.flatten(), weights.flatten(), dim=0)
    assert float(cosine) > 0.9999
    # f(x) - 200 t mean (x / r)^2 is largest at x = w r^2 / (400 t), t = |f| at the start.
    ratio = found.image.flatten() / weights.flatten()
    assert float(ratio.std() / ratio.mean()) < 0.05
    spans = found.statistics.range
    assert float(ratio.mean()) == pytest.approx(
        float(spans**2) / 400 / abs(found.start_scores[0]), rel=0.02
    )


@pytest.mark.parametrize("rank", [2, 3])
def test_accentuation_returns_the_image_where_the_penalty_is_infinite(rank: int) -> None:
    net, image = network(rank), images(rank)[0]
    changes = []
    for penalty in (0.0, 1e9):
        method = asked("feature_accentuation", steps=30, penalty=penalty)
        (found,) = synthesize(net, image, method, "second:1").values()
        changes.append(float((found.image - image.data).abs().max()))
        assert found.scores[0] >= found.start_scores[0]
    assert changes[0] > 0.05
    assert changes[1] < 1e-5


def test_units_together_are_what_each_is_alone() -> None:
    net, cases = network(2), measure(images(2))
    units = [f"first:{channel}" for channel in range(6)]
    method = asked("feature_visualization", steps=25)
    together = synthesize(net, cases, method, units)
    for unit in units[::2]:
        (alone,) = synthesize(net, cases, method, unit).values()
        found = together[f"feature_visualization@{unit}"]
        assert torch.allclose(found.images, alone.images, atol=2e-4)
        assert torch.allclose(found.history, alone.history, atol=2e-4)
        little = synthesize(net, cases, method, units, memory=1)[f"feature_visualization@{unit}"]
        assert torch.allclose(little.images, alone.images, atol=2e-4)


def test_memory_bounds_how_many_images_go_together() -> None:
    sizes: list[int] = []
    net = network(2)
    net.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    units = [f"first:{channel}" for channel in range(6)]
    cases, method = measure(images(2)), asked("feature_visualization", steps=2)
    synthesize(net, cases, method, units, memory=1)
    assert max(sizes) <= 2  # the network is tried on two images
    synthesize(net, cases, method, units)
    assert max(sizes) == 6


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("name", sorted(FEW))
def test_every_method_is_deterministic_and_leaves_the_network_alone(name: str, rank: int) -> None:
    net, cases = network(rank), images(rank)
    given = cases if name in SEVERAL else cases[0]
    with untouched(net):
        first = synthesize(net, given, asked(name), "second:1", seed=3)
        again = synthesize(copy.deepcopy(net), given, asked(name), "second:1", seed=3)
        other = synthesize(net, given, asked(name), "second:1", seed=4)
    assert first.keys() == {name}
    assert torch.equal(first[name].images, again[name].images)
    assert first[name].scores == again[name].scores
    assert bool(torch.isfinite(first[name].images).all())
    if name != "feature_accentuation":
        assert first[name].images.shape != other[name].images.shape or not torch.equal(
            first[name].images, other[name].images
        )


def test_all_methods_are_registered() -> None:
    assert {*synthesis_methods} == {*FEW}


@pytest.mark.parametrize("name", sorted({*FEW} - {"activation_atlas", "activation_grid"}))
def test_a_volume_of_one_slice_gives_what_the_slice_gives(name: str) -> None:
    planar, cases = network(2), images(2)
    solid, deep = one_slice(planar), [deeper(image) for image in cases]
    flat = synthesize(planar, cases[0], asked(name), "second:1", statistics=measure(cases))
    thick = synthesize(solid, deep[0], asked(name), "second:1", statistics=measure(deep))
    assert torch.allclose(flat[name].images, thick[name].images[:, :, 0], atol=1e-3)
    assert flat[name].scores == pytest.approx(thick[name].scores, abs=1e-3)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("unit", ["second", "second:1"])
def test_deep_dream_increases_the_layer_and_keeps_the_background(rank: int, unit: str) -> None:
    net, image = network(rank), images(rank)[0]
    (found,) = synthesize(net, image, asked("deep_dream", steps=8), unit).values()
    assert found.scores[0] > 1.5 * found.start_scores[0]
    outside = (image.data == 0).all(dim=0)
    assert int(outside.sum()) > 0
    assert torch.allclose(found.image[:, outside], image.data[:, outside], atol=1e-6)
    assert not torch.allclose(found.image, image.data, atol=0.05)
    statistics = measure([image])
    for channel, low, high in zip(range(2), statistics.low, statistics.high, strict=True):
        assert (
            float(found.image[channel].min())
            >= min(float(low), float(image.data[channel].min())) - 1e-5
        )
        assert (
            float(found.image[channel].max())
            <= max(float(high), float(image.data[channel].max())) + 1e-5
        )


def test_octaves_have_voxels_that_are_cubes_in_mm_where_they_can_be() -> None:
    method = synthesis_methods.parse({"name": "deep_dream", "octaves": 3, "factor": 2.0})
    grids = method.grids(Grid.default((64, 64, 16), (1.0, 1.0, 3.0)), (1, 1, 1))
    assert [grid.shape for grid in grids] == [(16, 16, 12), (32, 32, 16), (64, 64, 16)]
    assert grids[0].spacing == pytest.approx((4.0, 4.0, 4.0))
    assert grids[1].spacing == pytest.approx((2.0, 2.0, 3.0))
    strided = method.grids(Grid.default((64, 64, 16), (1.0, 1.0, 3.0)), (8, 8, 8))
    assert all(size % 8 == 0 for grid in strided for size in grid.shape)


@pytest.mark.parametrize("rank", [2, 3])
def test_an_invertible_layer_gives_its_image_back(rank: int) -> None:
    convolution = (nn.Conv2d, nn.Conv3d)[rank - 2]
    torch.manual_seed(0)
    net = nn.Sequential(convolution(2, 4, 1), nn.Tanh(), convolution(4, 2, 1)).eval()
    image = images(rank)[0]
    method = {"name": "inverted_representation", "steps": 300, "rate": 0.05}
    (found,) = synthesize(net, image, method, "0").values()
    assert found.findings["correlation with the image"] > 0.99
    lost = {"name": "inverted_representation", "steps": 3}
    (found,) = synthesize(net, image, lost, "0").values()
    assert found.findings["correlation with the image"] < 0.9


def test_images_of_one_unit_differ_more_where_their_difference_counts() -> None:
    net, cases = network(2), measure(images(2))
    correlations = []
    for weight in (0.0, 3.0):
        method = asked("feature_visualization", steps=60, images=3, diversity=weight)
        (found,) = synthesize(net, cases, method, "second:1").values()
        assert len(found.images) == 3
        cells = net.second(torch.tanh(net.first(found.images))).detach().flatten(2)
        grams = nn.functional.normalize((cells @ cells.transpose(1, 2)).flatten(1), dim=1)
        correlations.append(float((grams @ grams.T).mean()))
    assert correlations[1] < correlations[0] - 0.01


@pytest.mark.parametrize("kind", ["pixel", "lowres", "fourier", "phase", "cppn"])
@pytest.mark.parametrize("rank", [2, 3])
def test_every_parametrization_drives_a_unit(kind: str, rank: int) -> None:
    method = asked("feature_visualization", steps=30, parametrization={"kind": kind})
    (found,) = synthesize(network(rank), images(rank), method, "second:1").values()
    assert found.scores[0] > found.start_scores[0]


def test_a_sum_of_units_drives_both() -> None:
    net, cases = network(2), measure(images(2))
    terms = [{"kind": "channel", "layer": "second", "channel": n} for n in (0, 1)]
    (both,) = synthesize(
        net, cases, asked("feature_visualization", steps=40), {"kind": "sum", "terms": terms}
    ).values()
    cells = net.second(torch.tanh(net.first(both.images))).detach()[0].flatten(1).mean(dim=1)
    assert float(cells[0] + cells[1]) == pytest.approx(both.scores[0], abs=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "deep_dream",
        "feature_accentuation",
        "feature_visualization",
        "inverted_representation",
        "activation_atlas",
    ],
)
def test_networks_with_windows_see_one_at_a_time(name: str) -> None:
    model = Model(network(2), window={"size": 8, "overlap": 0.5})
    cases = images(2)
    given = cases if name in SEVERAL else cases[0]
    (found,) = synthesize(model, given, asked(name), "second:1").values()
    if name == "activation_atlas":
        return
    assert found.grid.shape == (8, 8)
    if found.start is not None:
        offset = found.grid.affine[:2, 3] / cases[0].grid.spacing
        row, column = (round(float(at)) for at in offset)
        expected = cases[0].data[:, row : row + 8, column : column + 8]
        assert torch.equal(found.start, expected)


def test_an_atlas_of_one_class_takes_places_where_it_is_predicted() -> None:
    net, cases = network(2), images(2)
    whole = synthesize(net, cases, asked("activation_atlas"), "second")["activation_atlas"]
    assert sum(whole.findings["places"]) <= 8 * len(cases)
    predicted = torch.stack([net(case.data[None]).argmax(dim=1)[0] for case in cases])
    label = int(predicted.flatten().mode().values)
    part = synthesize(net, cases, asked("activation_atlas", predicted=label), "second")
    assert part["activation_atlas"].findings["predicted"] == label
    with pytest.raises(ConfigError, match="0 places where class 9 is predicted"):
        synthesize(net, cases, asked("activation_atlas", predicted=9), "second")


class Dead(nn.Module):
    """Its first channel is 0 whatever the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(2, 2, 1), nn.ReLU()
        with torch.no_grad():
            self.conv.weight[0] = 0
            self.conv.bias[0] = -1

    def forward(self, image: Tensor) -> Tensor:
        return self.relu(self.conv(image))


class Detached(nn.Module):
    """Its output has no graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        with torch.no_grad():
            return self.conv(image)


class ForwardOnly(Detached):
    """A black box."""

    differentiable = False


def test_what_cannot_be_driven_is_said_in_one_sentence() -> None:
    cases, method = images(2), asked("feature_visualization")
    with pytest.raises(ModelError, match="'relu:0' is dead: its value did not change in any step"):
        synthesize(Dead(), cases, method, "relu:0")
    torch.manual_seed(0)
    with pytest.warns(VoxplainWarning, match=r"'relu:0' is dead.*left out"):
        found = synthesize(Dead(), cases, method, ["relu:0", "relu:1"])
    assert [*found] == ["feature_visualization@relu:1"]
    for blind in (Detached(), ForwardOnly()):
        with pytest.raises(
            ModelError, match=r"synthesis needs gradients.*dissection works without"
        ):
            synthesize(blind, cases, method, "conv:0")
    net = network(2)
    with pytest.raises(ConfigError, match="starts from an image"):
        synthesize(net, measure(cases), "deep_dream", "second")
    with pytest.raises(ConfigError, match="needs cases"):
        synthesize(net, cases[0], "activation_atlas", "second")
    with pytest.raises(ConfigError, match="is about a layer, and 'class-1' is about none"):
        synthesize(net, cases[0], "inverted_representation", 1)
    with pytest.raises(ConfigError, match="did you mean deep_dream"):
        synthesize(net, cases[0], "deep_dreams", "second")
    with pytest.raises(ConfigError, match="no unit is asked for"):
        synthesize(net, cases[0], "deep_dream", [])
    flat = nn.Sequential(nn.Flatten(), nn.Linear(240, 4))
    with pytest.raises(ModelError, match="no spatial axes"):
        synthesize(flat, cases[0], "activation_grid", "1")


def test_small_pictures_cover_what_reaches_a_unit() -> None:
    net, cases = (
        network(2),
        [Image.from_array(torch.randn(2, 40, 30), spacing=1.0) for _ in range(2)],
    )
    method = asked("feature_visualization", extent="receptive_field")
    (found,) = synthesize(net, cases, method, "second:1").values()
    assert all(3 <= size <= 7 for size in found.grid.shape)
    (found,) = synthesize(net, cases, {**method, "extent": (10, 12)}, "second:1").values()
    assert found.grid.shape == (10, 12)
    with pytest.raises(ConfigError, match="3 sizes for images with 2 axes"):
        synthesize(net, cases, {**method, "extent": (10, 12, 3)}, "second:1")
