"""The CAM family against its definitions, written a second time in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from harsh import harsh_images
from networks import assert_close, classifier, convolution, images, segmenter, untouched
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from voxplain.attribution import explain
from voxplain.attribution.methods.full_grad import BiasTimesGradient
from voxplain.engine.gradients.reducers import TapBatch
from voxplain.errors import ModelError
from voxplain.models.model import Model

Array = NDArray[np.float64]
TARGET = {"kind": "class_score", "label": 1}
INTERPOLATION = {2: "bilinear", 3: "trilinear"}

every_place = pytest.mark.parametrize(
    ("task", "rank", "layer"),
    [
        (task, rank, layer)
        for task in ("classifier", "segmenter")
        for rank in (2, 3)
        for layer in ("conv1", "act2")
    ],
)


def grad_cam(A: Array, G: Array) -> Array:
    return _rectified((_mean(G) * A).sum(0))


def grad_cam_plus_plus(A: Array, G: Array) -> Array:
    """As in pytorch-grad-cam 1.5.7, with its constant in the denominator."""
    share = G**2 / (2 * G**2 + _sum(A) * G**3 + 1e-6)
    weights = _sum(np.where(G != 0, share, 0) * np.maximum(G, 0))
    return _rectified((weights * A).sum(0))


def x_grad_cam(A: Array, G: Array) -> Array:
    return _rectified((_sum(G * A / (_sum(A) + 1e-7)) * A).sum(0))


def layer_cam(A: Array, G: Array) -> Array:
    return _rectified((_rectified(G) * A).sum(0))


def hires_cam(A: Array, G: Array) -> Array:
    return _rectified((G * A).sum(0))


def elementwise_grad_cam(A: Array, G: Array) -> Array:
    return _rectified(G * A).sum(0)


def eigen_cam(A: Array, G: Array) -> Array:
    return _rectified(_projection(A, G * A))


def eigen_grad_cam(A: Array, G: Array) -> Array:
    return _rectified(_projection(G * A, G * A))


DEFINITIONS: dict[str, tuple[Callable[[Array, Array], Array], float]] = {
    "grad_cam": (grad_cam, 1e-9),
    "seg_grad_cam": (grad_cam, 1e-9),
    "grad_cam_plus_plus": (grad_cam_plus_plus, 1e-4),
    "x_grad_cam": (x_grad_cam, 1e-6),
    "layer_cam": (layer_cam, 1e-9),
    "hires_cam": (hires_cam, 1e-9),
    "elementwise_grad_cam": (elementwise_grad_cam, 1e-9),
    "eigen_cam": (eigen_cam, 1e-9),
    "eigen_grad_cam": (eigen_grad_cam, 1e-9),
}


def _mean(values: Array) -> Array:
    return values.mean(axis=tuple(range(1, values.ndim)), keepdims=True)


def _sum(values: Array) -> Array:
    return values.sum(axis=tuple(range(1, values.ndim)), keepdims=True)


def _rectified(values: Array) -> Array:
    return np.maximum(values, 0)


def _projection(values: Array, product: Array) -> Array:
    """First right singular vector of the centered (positions, channels) matrix."""
    matrix = values.reshape(len(values), -1).T
    matrix = matrix - matrix.mean(axis=0)
    _, _, vectors = np.linalg.svd(matrix, full_matrices=False)
    projected = matrix @ vectors[0]
    evidence = product.sum(0).ravel()
    if np.corrcoef(projected, evidence)[0, 1] < 0:
        projected = -projected
    return np.asarray(projected.reshape(values.shape[1:]))


def scaled(task: str, rank: int) -> nn.Sequential:
    """Gradients near 1, for which the constants of other libraries are negligible."""
    network = {
        "classifier": lambda: classifier(rank, 2, halve=True),
        "segmenter": lambda: segmenter(rank, 2),
    }[task]().double()
    with torch.no_grad():
        network.head.weight.mul_(1e4)
    return network


def split(network: nn.Sequential, layer: str, image: Tensor) -> tuple[Array, Array]:
    """Activation and gradient of a layer of one image, by cutting the network in two there."""
    children = dict(network.named_children())
    names = list(children)
    cut = names.index(layer) + 1
    with torch.no_grad():
        activation = nn.Sequential(*[children[name] for name in names[:cut]])(image[None])
    activation.requires_grad_(True)
    output = nn.Sequential(*[children[name] for name in names[cut:]])(activation)
    (gradient,) = torch.autograd.grad(output[:, 1].sum(), activation)
    return activation.detach()[0].numpy(), gradient[0].numpy()


def on_image(cam: Array, shape: tuple[int, ...]) -> Tensor:
    """A map ``(*cells)`` as ``(1, *spatial)``."""
    values = torch.from_numpy(cam)[None, None]
    return functional.interpolate(values, shape, mode=INTERPOLATION[len(shape)])[0]


@every_place
def test_every_definition(task: str, rank: int, layer: str) -> None:
    network = scaled(task, rank)
    inputs = images(rank, 2, 3).double()
    with untouched(network):
        attributions = explain(
            network, inputs, [{"name": name, "layer": layer} for name in DEFINITIONS], TARGET
        )
    for name, (definition, tolerance) in DEFINITIONS.items():
        for row, image in enumerate(inputs):
            expected = on_image(definition(*split(network, layer, image)), image.shape[1:])
            assert_close(attributions[name].map[row], expected, tolerance, name)


@every_place
def test_unrectified_maps_keep_their_sign(task: str, rank: int, layer: str) -> None:
    network = scaled(task, rank)
    inputs = images(rank, 2, 2).double()
    method = {"name": "grad_cam", "layer": layer, "relu": False}
    actual = explain(network, inputs, method, TARGET)["grad_cam"].map
    for row, image in enumerate(inputs):
        activation, gradient = split(network, layer, image)
        cam = (_mean(gradient) * activation).sum(0)
        assert_close(actual[row], on_image(cam, image.shape[1:]), 1e-9)
    assert task == "classifier" or (actual < 0).any()


@pytest.mark.parametrize("rank", [2, 3])
def test_plus_plus_without_the_constant(rank: int) -> None:
    """Small gradients are not swamped: the exact ratio, however small they are."""
    network = scaled("classifier", rank)
    inputs = images(rank, 2, 1).double()
    with torch.no_grad():
        network.head.weight.mul_(1e-10)
    activation, gradient = split(network, "conv1", inputs[0])
    with np.errstate(invalid="ignore"):  # 0/0 where the gradient is 0, replaced below
        share = gradient**2 / (2 * gradient**2 + _sum(activation) * gradient**3)
    weights = _sum(np.where(gradient != 0, share, 0) * np.maximum(gradient, 0))
    expected = on_image(_rectified((weights * activation).sum(0)), inputs.shape[2:])
    method = {"name": "grad_cam_plus_plus", "layer": "conv1"}
    assert_close(explain(network, inputs, method, TARGET)[method["name"]].map[0], expected, 1e-9)


def test_channels_whose_activations_cancel_contribute_nothing() -> None:
    """The denominators of Grad-CAM++ and XGrad-CAM may vanish; the maps stay finite."""

    class Balanced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = nn.Identity()

        def forward(self, image: Tensor) -> Tensor:
            return (self.same(image) * torch.tensor([[[[1.0, 3.0]]]])).flatten(2).sum(2)

    image = torch.tensor([[[[1.0, -1.0]], [[1.0, 1.0]]]])  # channel 0 sums to 0
    methods = [
        {"name": "x_grad_cam", "layer": "same", "relu": False},
        {"name": "grad_cam_plus_plus", "layer": "same", "relu": False},
    ]
    cancelling = explain(Balanced(), image, methods, {"kind": "class_score", "label": 0})
    assert cancelling["x_grad_cam"].map.eq(0).all()
    # G = (1, 3), sum A = 0: shares 1/2, hence weight (1 + 3) / 2 = 2.
    expected = torch.tensor([[[[2.0, -2.0]]]])
    torch.testing.assert_close(cancelling["grad_cam_plus_plus"].map, expected)


@every_place
def test_guided_grad_cam_is_its_parents_product(task: str, rank: int, layer: str) -> None:
    network, inputs = scaled(task, rank), images(rank, 2, 2).double()
    methods = [
        {"name": "guided_grad_cam", "layer": layer},
        {"name": "grad_cam", "layer": layer},
        "guided_backprop",
    ]
    attributions = explain(network, inputs, methods, TARGET)
    product = attributions["grad_cam"].map * attributions["guided_backprop"].map
    assert_close(attributions["guided_grad_cam"].map, product, 1e-12)


@pytest.mark.parametrize("rank", [2, 3])
def test_seg_grad_cam_of_a_region_weighs_by_that_region(rank: int) -> None:
    network, inputs = scaled("segmenter", rank), images(rank, 2, 1).double()
    voxel = (2,) * rank
    target = {"kind": "region", "label": 1, "voxel": voxel}
    leaf = network.conv2(network.act1(network.conv1(inputs))).detach().requires_grad_(True)
    score = network.head(network.act2(leaf))[(0, 1, *voxel)]
    (gradient,) = torch.autograd.grad(score, leaf)
    cam = _rectified((_mean(gradient[0].numpy()) * leaf.detach()[0].numpy()).sum(0))
    method = {"name": "seg_grad_cam", "layer": "conv2"}
    actual = explain(network, inputs, method, target)["seg_grad_cam"].map[0]
    assert_close(actual, torch.from_numpy(cam)[None], 1e-9)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("size", [4, 12])
def test_windows_change_no_cam_of_a_network_without_neighborhoods(rank: int, size: int) -> None:
    """Overlapping windows, and one that is larger than the image along every axis."""
    conv = convolution(rank)
    network = nn.Sequential(conv(2, 3, 1), nn.ReLU(), conv(3, 4, 1)).double().eval()
    with torch.no_grad():
        network[0].bias.fill_(0.3)
        network[2].weight[1] = torch.tensor([-1.0, 0.5, 2.0]).view(network[2].weight[1].shape)
    image = harsh_images(rank).double()
    names = ["grad_cam", "hires_cam", "layer_cam", "elementwise_grad_cam"]
    methods = [{"name": name, "layer": "1", "relu": False} for name in names]
    target = {"kind": "class_score", "label": 1}
    whole = explain(network, image, methods, target)
    windowed = explain(Model(network, window={"size": size}), image, methods, target)
    for name in names:
        assert_close(windowed[name].map, whole[name].map, 1e-9)


@pytest.mark.parametrize("rank", [2, 3])
def test_full_grad(rank: int) -> None:
    network, inputs = scaled("classifier", rank), images(rank, 2, 2).double()
    actual = explain(network, inputs, "full_grad", TARGET)["full_grad"].map
    for row, image in enumerate(inputs):
        leaf = image[None].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(network(leaf)[0, 1], leaf)
        expected = (leaf * gradient).abs().sum(1).detach()
        for layer in ("conv1", "conv2"):
            _, at_layer = split(network, layer, image)
            bias = network.get_submodule(layer).bias.detach().numpy()
            part = np.abs(bias.reshape(-1, *(1,) * rank) * at_layer).sum(0)
            expected = expected + on_image(part, image.shape[1:])
        assert_close(actual[row], expected, 1e-9)


def test_full_grad_needs_a_bias() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=False), nn.Flatten(), nn.Linear(32, 2, bias=False)
    )
    with pytest.raises(ModelError, match="full_grad needs layers with biases or norms"):
        explain(network, images(2), "full_grad", 1)


def norms(rank: int) -> dict[str, Any]:
    batch, instance = (getattr(nn, f"{kind}{rank}d") for kind in ("BatchNorm", "InstanceNorm"))
    return {
        "batch": batch(4),
        "batch without affine": batch(4, affine=False),
        "batch without statistics": batch(4, track_running_stats=False),
        "instance": instance(4),
        "instance with affine": instance(4, affine=True),
        "instance with statistics": instance(4, affine=True, track_running_stats=True),
        "group": nn.GroupNorm(2, 4),
        "group without affine": nn.GroupNorm(2, 4, affine=False),
        "convolution": convolution(rank)(4, 4, 3, padding=1),
    }


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("kind", norms(2))
def test_implicit_bias_is_what_does_not_scale_with_the_input(rank: int, kind: str) -> None:
    """b(x) = y - J x, with the Jacobian of the layer itself."""
    module = norms(rank)[kind].double()
    with torch.no_grad():
        for part in [*module.parameters(), *module.buffers()]:
            if part.is_floating_point():
                part.copy_(torch.rand_like(part) + 0.5)
    module.eval()
    image = images(rank, 4).double() * 0.02  # a variance in the order of eps
    output, moved = torch.autograd.functional.jvp(module, image, image)
    reducer = BiasTimesGradient(module, windowed=False)
    gradient = torch.rand_like(output)
    reducer.update(TapBatch(output, gradient, torch.ones(1, dtype=torch.float64)))
    assert_close(reducer.result(), ((output - moved) * gradient)[0], 1e-9)
