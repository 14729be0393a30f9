"""Gradients for what convolutions of few channels read: the same, whatever the way."""

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
    # sides, kernel, stride, padding
    ((12, 12), (3, 3), (1, 1), (1, 1)),
    ((9, 14), (7, 7), (2, 2), (3, 3)),
    ((11, 8), (5, 2), (1, 3), (0, 1)),
    ((10, 10), (2, 2), (4, 4), (0, 0)),  # voxels that nobody reads
    ((7, 9), (1, 3), (2, 1), (2, 4)),  # cells that read no voxel
    ((9, 8, 7), (3, 3, 3), (1, 1, 1), (1, 1, 1)),
    ((8, 9, 11), (7, 7, 7), (2, 2, 2), (3, 3, 3)),
    ((5, 8, 9), (1, 3, 4), (1, 2, 3), (0, 1, 0)),
    ((6, 6, 6), (6, 6, 6), (1, 1, 1), (0, 0, 0)),
    ((20,), (5,), (2,), (1,)),
]
_CONVOLVED: dict[int, Any] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


def _convolved(read: Tensor, weight: Tensor, *how: Any) -> Tensor:
    found: Tensor = _CONVOLVED[read.ndim - 2](read, weight, None, *how)
    return found


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("how", SHAPES, ids=str)
def test_the_gradient_is_that_of_autograd(channels: int, how: tuple[tuple[int, ...], ...]) -> None:
    sides, kernel, stride, padding = how
    source = torch.Generator().manual_seed(channels)
    weight = torch.randn(4, channels, *kernel, generator=source, dtype=torch.float64)
    read = torch.randn(3, channels, *sides, generator=source, dtype=torch.float64)
    given = _convolved(read.requires_grad_(True), weight, stride, padding)
    arriving = torch.randn(given.shape, generator=source, dtype=torch.float64)
    (expected,) = torch.autograd.grad(given, read, arriving)
    found = input_gradient(arriving, read.shape, weight, stride, padding)
    assert found.is_contiguous()
    assert_close(found, expected, 1e-12)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what is read by the convolutions that are treated."""
    seen: list[tuple[int, ...]] = []

    def counted(arriving: Tensor, shape: tuple[int, ...], *rest: Any) -> Tensor:
        seen.append(tuple(shape))
        return input_gradient(arriving, shape, *rest)

    monkeypatch.setattr(few_channels, "input_gradient", counted)
    return seen


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
    method: Any, rank: int, channels: int, quick: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By every rule, with and without the quicker way."""
    torch.manual_seed(0)
    kind = {2: nn.Conv2d, 3: nn.Conv3d}[rank]
    first, second = kind(channels, 20, 3, 2, 1), kind(20, 4, 3, padding=1)
    network = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(2), Mean()).eval()
    image = torch.randn(2, channels, *{2: (160, 130), 3: (28, 30, 26)}[rank])
    found = [map.map for map in explain(network, image, method, 1).values()]
    assert {shape[1:] for shape in quick} == {tuple(image.shape[1:])}
    monkeypatch.setattr(passes, "quick_gradients", lambda values: contextlib.nullcontext())
    expected = [map.map for map in explain(network, image, method, 1).values()]
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).abs().max()) < 2e-6 * float(other.abs().max())


class Mean(nn.Module):
    """Per channel the mean over positions."""

    def forward(self, values: Tensor) -> Tensor:
        return values.mean(dim=2)


@pytest.mark.parametrize(
    ("convolution", "dtype", "sides", "learns"),
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
    convolution: Any, dtype: torch.dtype, sides: int, learns: bool, quick: list[Any]
) -> None:
    """Other kinds of convolutions, small ones, full vectors, and gradients for weights as well."""
    convolution.to(dtype).requires_grad_(learns)
    read = torch.randn(1, convolution.in_channels, sides, sides, dtype=dtype, requires_grad=True)
    asked = [read, *(part for part in convolution.parameters() if part.requires_grad)]
    with quick_gradients([torch.empty(1, 1, 200, 200)]):
        found = torch.autograd.grad(convolution(read).square().sum(), asked)
    assert not quick
    expected = torch.autograd.grad(convolution(read).square().sum(), asked)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_gradients_of_gradients(quick: list[Any]) -> None:
    """The graph of the gradient is kept where it is asked for."""
    convolution = nn.Conv2d(1, 4, 3).requires_grad_(False)
    read = torch.randn(2, 1, 128, 128, requires_grad=True)

    def curvature() -> Tensor:
        (slope,) = torch.autograd.grad(convolution(read).pow(3).sum(), read, create_graph=True)
        (found,) = torch.autograd.grad(slope.square().sum(), read)
        return found

    expected = curvature()
    with quick_gradients([read]):
        found = curvature()
    assert quick
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())


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
