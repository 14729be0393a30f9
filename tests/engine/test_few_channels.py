"""Fast input gradients of convolutions with few channels equal those of autograd."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import Any

import pytest
import torch
from networks import assert_close
from torch import Tensor, nn
from torch.nn import functional

from voxplain.attribution import explain
from voxplain.engine.acceleration import few_channels
from voxplain.engine.acceleration.few_channels import input_gradient, quick_gradients
from voxplain.engine.passes import base as passes

SHAPES = [
    # input shape, kernel, stride, padding
    ((12, 12), (3, 3), (1, 1), (1, 1)),
    ((9, 14), (7, 7), (2, 2), (3, 3)),
    ((11, 8), (5, 2), (1, 3), (0, 1)),
    ((10, 10), (2, 2), (4, 4), (0, 0)),  # some voxels are read by no cell
    ((7, 9), (1, 3), (2, 1), (2, 4)),  # some cells read padding alone
    ((9, 8, 7), (3, 3, 3), (1, 1, 1), (1, 1, 1)),
    ((8, 9, 11), (7, 7, 7), (2, 2, 2), (3, 3, 3)),
    ((5, 8, 9), (1, 3, 4), (1, 2, 3), (0, 1, 0)),
    ((6, 6, 6), (6, 6, 6), (1, 1, 1), (0, 0, 0)),
    ((20,), (5,), (2,), (1,)),
]
_CONVOLVED: dict[int, Any] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


def _convolved(volume: Tensor, weight: Tensor, *settings: Any) -> Tensor:
    output: Tensor = _CONVOLVED[volume.ndim - 2](volume, weight, None, *settings)
    return output


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_the_gradient_is_that_of_autograd(
    channels: int, shapes: tuple[tuple[int, ...], ...]
) -> None:
    sides, kernel, stride, padding = shapes
    source = torch.Generator().manual_seed(channels)
    weight = torch.randn(4, channels, *kernel, generator=source, dtype=torch.float64)
    volume = torch.randn(3, channels, *sides, generator=source, dtype=torch.float64)
    output = _convolved(volume.requires_grad_(True), weight, stride, padding)
    output_gradient = torch.randn(output.shape, generator=source, dtype=torch.float64)
    (expected,) = torch.autograd.grad(output, volume, output_gradient)
    gradient = input_gradient(output_gradient, volume.shape, weight, stride, padding)
    assert gradient.is_contiguous()
    assert_close(gradient, expected, 1e-12)


@pytest.fixture
def accelerated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The input shapes of the convolutions whose gradient was computed by blocks."""
    shapes: list[tuple[int, ...]] = []

    def recorded(gradient: Tensor, shape: tuple[int, ...], *settings: Any) -> Tensor:
        shapes.append(tuple(shape))
        return input_gradient(gradient, shape, *settings)

    monkeypatch.setattr(few_channels, "input_gradient", recorded)
    return shapes


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize(
    "method",
    [
        "saliency",
        "guided_backprop",
        "deep_lift",
        "lrp",
        {"name": "integrated_gradients", "steps": 3},
    ],
    ids=str,
)
def test_maps_are_the_same(
    method: Any, rank: int, channels: int, accelerated: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By every rule, with and without the acceleration."""
    torch.manual_seed(0)
    kind = {2: nn.Conv2d, 3: nn.Conv3d}[rank]
    first, second = kind(channels, 20, 3, 2, 1), kind(20, 4, 3, padding=1)
    network = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(2), Mean()).eval()
    image = torch.randn(2, channels, *{2: (160, 130), 3: (28, 30, 26)}[rank])
    maps = [attribution.map for attribution in explain(network, image, method, 1).values()]
    assert {shape[1:] for shape in accelerated} == {tuple(image.shape[1:])}
    monkeypatch.setattr(passes, "quick_gradients", lambda values: contextlib.nullcontext())
    expected = [attribution.map for attribution in explain(network, image, method, 1).values()]
    for attribution_map, reference in zip(maps, expected, strict=True):
        assert float((attribution_map - reference).abs().max()) < 2e-6 * float(
            reference.abs().max()
        )


class Mean(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values.mean(dim=2)


@pytest.mark.parametrize(
    ("convolution", "dtype", "sides", "trainable"),
    [
        (nn.Conv2d(2, 4, 3, dilation=2), torch.float32, 128, False),
        (nn.Conv2d(2, 4, 3, groups=2), torch.float32, 128, False),
        (nn.ConvTranspose2d(2, 4, 3), torch.float32, 128, False),
        (nn.Conv2d(2, 4, 1), torch.float32, 128, False),
        (nn.Conv2d(2, 4, 3), torch.float64, 128, False),
        (nn.Conv2d(2, 4, 3), torch.float32, 64, False),
        (nn.Conv2d(20, 4, 3), torch.float32, 64, False),
        (nn.Conv2d(3, 4, 4, 4), torch.float32, 128, False),
        (nn.Conv2d(2, 1, 3), torch.float32, 128, False),
        (nn.Conv2d(2, 4, 3), torch.float32, 128, True),
    ],
    ids=str,
)
def test_other_gradients_are_left_alone(
    convolution: Any, dtype: torch.dtype, sides: int, trainable: bool, accelerated: list[Any]
) -> None:
    """Other kinds of convolutions, small ones, full vectors, and gradients for weights as well."""
    convolution.to(dtype).requires_grad_(trainable)
    shape = (1, convolution.in_channels, sides, sides)
    image = torch.randn(shape, dtype=dtype, requires_grad=True)
    leaves = [image, *(weight for weight in convolution.parameters() if weight.requires_grad)]
    with quick_gradients([torch.empty(1, 1, 200, 200)]):
        gradients = torch.autograd.grad(convolution(image).square().sum(), leaves)
    assert not accelerated
    expected = torch.autograd.grad(convolution(image).square().sum(), leaves)
    for gradient, reference in zip(gradients, expected, strict=True):
        assert torch.equal(gradient, reference)


def test_gradients_of_gradients(accelerated: list[Any]) -> None:
    """The graph of the gradient is kept with ``create_graph``."""
    convolution = nn.Conv2d(1, 4, 3).requires_grad_(False)
    image = torch.randn(2, 1, 128, 128, requires_grad=True)

    def second_order() -> Tensor:
        score = convolution(image).pow(3).sum()
        (gradient,) = torch.autograd.grad(score, image, create_graph=True)
        (result,) = torch.autograd.grad(gradient.square().sum(), image)
        return result

    expected = second_order()
    with quick_gradients([image]):
        result = second_order()
    assert accelerated
    assert float((result - expected).abs().max()) < 1e-5 * float(expected.abs().max())


def test_the_compiler_is_not_imported() -> None:
    """A dispatch mode would import it by default, which takes longer than most explanations."""
    code = """
import sys, torch
from voxplain.engine.acceleration.few_channels import quick_gradients
read = torch.randn(2, 1, 128, 128, requires_grad=True)
score = torch.nn.Conv2d(1, 4, 3)(read).sum()
with quick_gradients([read]):
    torch.autograd.grad(score, read)
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
