"""Small networks that the tests of the engine share, and what must not happen to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Spelling = Literal["module", "shared", "functional", "method", "inplace"]
SPELLINGS: tuple[Spelling, ...] = ("module", "shared", "functional", "method", "inplace")


class Rectified(nn.Module):
    """A network whose ReLUs are spelled in one of five ways.

    Attributes:
        spelling: Two modules, one module in both places, functional, method or in-place calls.
    """

    def __init__(self, spelling: Spelling = "module") -> None:
        super().__init__()
        self.spelling = spelling
        if spelling in ("module", "shared"):
            self.relu1 = nn.ReLU()
            self.relu2 = nn.ReLU() if spelling == "module" else self.relu1

    def rectify(self, values: Tensor, place: int) -> Tensor:
        """One ReLU."""
        if self.spelling in ("module", "shared"):
            rectified: Tensor = getattr(self, f"relu{place}")(values)
            return rectified
        if self.spelling == "functional":
            return functional.relu(values)
        return values.relu() if self.spelling == "method" else values.relu_()


class ModelM(Rectified):
    """S = relu(s - 10) + 3 (s + 1) - 1 of the sum s of three inputs, for s >= -1."""

    def __init__(self, spelling: Spelling = "module") -> None:
        super().__init__(spelling)
        self.linear0 = nn.Linear(3, 3, bias=False)
        self.linear1 = nn.Linear(3, 4)
        self.linear2 = nn.Linear(4, 2)
        with torch.no_grad():
            self.linear0.weight.copy_(torch.eye(3))
            self.linear1.weight.fill_(1)
            self.linear1.bias.copy_(torch.tensor([-10.0, 1, 1, 1]))
            self.linear2.weight.fill_(1)
            self.linear2.bias.copy_(torch.tensor([-1.0, 1]))

    def forward(self, image: Tensor) -> Tensor:
        return self.linear2(self.rectify(self.linear1(self.linear0(image.flatten(1))), 1))


class ModelK(Rectified):
    """A 3 x 3 convolution to two channels, a ReLU, a signed sum and a ReLU."""

    def __init__(self, rank: int = 2, spelling: Spelling = "module") -> None:
        super().__init__(spelling)
        kernel = (3, 3) if rank == 2 else (1, 3, 3)
        self.conv = convolution(rank)(1, 2, kernel)
        self.linear = nn.Linear(8, 4, bias=False)
        with torch.no_grad():
            self.conv.weight.fill_(1)
            self.conv.bias.copy_(torch.tensor([-50.0, -75]))
            self.linear.weight.copy_(torch.tensor([1.0] * 5 + [-1] * 3).expand(4, 8))

    def forward(self, image: Tensor) -> Tensor:
        features = self.rectify(self.conv(image), 1)
        return self.rectify(self.linear(features.flatten(1)), 2)


class TwoInputs(Rectified):
    """S(a, b) = relu(relu(a) - 1 - relu(b))."""

    def forward(self, image: Tensor) -> Tensor:
        a, b = image.flatten(1).clone().unbind(1)
        inner = self.rectify(a.clone(), 1) - 1 - self.rectify(b.clone(), 1)
        return self.rectify(inner, 2)[:, None]


class Cubes(nn.Module):
    """S(x) = sum of x cubed."""

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1).pow(3).sum(1, keepdim=True)


class Linear(nn.Module):
    """S(x) = <w, x> + 1 with weights 1, 2, 3, ..., one score."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        count = int(torch.tensor(shape).prod())
        self.weight = nn.Parameter(torch.arange(1.0, count + 1).view(shape))

    def forward(self, image: Tensor) -> Tensor:
        return (image * self.weight).flatten(1).sum(1, keepdim=True) + 1


def convolution(rank: int) -> type[nn.Module]:
    """``nn.Conv2d`` or ``nn.Conv3d``."""
    found: type[nn.Module] = getattr(nn, f"Conv{rank}d")
    return found


def classifier(
    rank: int = 2,
    channels: int = 1,
    classes: int = 3,
    act: type[nn.Module] = nn.ReLU,
    halve: bool = False,
) -> nn.Sequential:
    """conv1 act1 (down) conv2 act2 flat head: scores ``(B, classes)``, modules used once.

    For images of 6 voxels per axis. The features speak for class 1, so that CAMs are not zero.
    """
    torch.manual_seed(10 * rank + channels)
    conv = convolution(rank)
    net = nn.Sequential()
    net.add_module("conv1", conv(channels, 4, 3, padding=1))
    net.add_module("act1", act())
    if halve:
        net.add_module("down", getattr(nn, f"AvgPool{rank}d")(2))
    net.add_module("conv2", conv(4, 6, 3, padding=1))
    net.add_module("act2", act())
    net.add_module("flat", nn.Flatten())
    head = nn.Linear(6 * (3 if halve else 6) ** rank, classes)
    net.add_module("head", head)
    with torch.no_grad():
        head.weight[1] += head.weight.abs().mean()
    return net.eval()


def segmenter(
    rank: int = 2, channels: int = 1, classes: int = 3, act: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """conv1 act1 conv2 act2 head: ``(B, classes, *spatial)``, every class predicted somewhere."""
    torch.manual_seed(10 * rank + channels)
    conv = convolution(rank)
    net = nn.Sequential()
    net.add_module("conv1", conv(channels, 4, 3, padding=1))
    net.add_module("act1", act())
    net.add_module("conv2", conv(4, 6, 3, padding=1))
    net.add_module("act2", act())
    head = conv(6, classes, 1)
    net.add_module("head", head)
    with torch.no_grad():
        mean = net(images(rank, channels, 4)).transpose(0, 1).flatten(1).mean(1)
        head.bias -= mean
    return net.eval()


class Summed(nn.Module):
    """Scores ``(B, K)`` of a dense network: its output summed over fixed weights.

    This is how other libraries are given a segmentation target.
    """

    def __init__(self, network: nn.Module, weights: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("weights", weights)

    def forward(self, image: Tensor) -> Tensor:
        output = self.network(image)
        return (output * self.weights.to(output)).flatten(1).sum(1, keepdim=True)


def one_slice(network: nn.Sequential) -> nn.Sequential:
    """The same 2-D network for one-slice volumes ``(B, C, 1, H, W)``, with kernels (1, k, k)."""
    lifted = nn.Sequential()
    for name, module in network.named_children():
        lifted.add_module(name, _lifted(module))
    return lifted.to(next(network.parameters()).dtype).eval()


def _lifted(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.Conv2d):
        kernel, padding = (1, *module.kernel_size), (0, *module.padding)  # type: ignore[misc]
        conv = nn.Conv3d(module.in_channels, module.out_channels, kernel, padding=padding)
        with torch.no_grad():
            conv.weight.copy_(module.weight[:, :, None])
            conv.bias.copy_(module.bias)
        return conv
    return module


def images(rank: int = 2, channels: int = 1, batch: int = 1, size: int = 6) -> Tensor:
    """N(0, 1) images, the same in every call."""
    source = torch.Generator().manual_seed(7)
    return torch.randn(batch, channels, *(size,) * rank, generator=source)


def state(network: nn.Module) -> dict[str, Any]:
    """Everything of a network that an explanation must leave as it was."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "values": {name: part.detach().clone() for name, part in network.state_dict().items()},
        "objects": {name: id(part) for name, part in network.named_parameters()},
        "versions": {name: part._version for name, part in network.named_parameters()},
        "modules": {name: (id(part), type(part)) for name, part in network.named_modules()},
        "modes": {name: part.training for name, part in network.named_modules()},
        "flags": {name: part.requires_grad for name, part in network.named_parameters()},
        "grads": {name: part.grad for name, part in network.named_parameters()},
        "hooks": {
            (name, kind): len(getattr(part, kind))
            for name, part in network.named_modules()
            for kind in hooks
        },
        "attributes": {name: sorted(vars(part)) for name, part in network.named_modules()},
        "random": torch.get_rng_state(),
        "grad_enabled": torch.is_grad_enabled(),
    }


def assert_same_state(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Bit-identical in every respect that :func:`state` lists."""
    for name in before:
        if name == "values":
            assert before[name].keys() == after[name].keys()
            for part, value in before[name].items():
                assert torch.equal(value, after[name][part]), f"{part} has changed"
        elif name == "random":
            assert torch.equal(before[name], after[name]), "the global generator was used"
        else:
            assert before[name] == after[name], f"{name} of the network have changed"


@contextmanager
def untouched(network: nn.Module) -> Iterator[None]:
    """Asserts that the block leaves the network, and torch's global state, as they were."""
    before = state(network)
    yield
    assert_same_state(before, state(network))


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-5, note: str = "") -> None:
    """Equal relative to the largest value of the expected map, as parity is stated."""
    assert found.shape == expected.shape, f"{note}: {found.shape} against {expected.shape}"
    scale = float(expected.detach().abs().max())
    assert scale > 0, f"{note}: the expected map is zero, which proves nothing"
    error = float((found.detach().double() - expected.detach().double()).abs().max()) / scale
    assert error <= tolerance, f"{note}: relative error {error:.3g} above {tolerance:.3g}"
