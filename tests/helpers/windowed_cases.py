"""Windowed networks, and their blended output written out in one graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from voxplain.models.layout import Layout
from voxplain.models.model import Model
from voxplain.models.windows import Window
from voxplain.targets import UnperturbedOutput, WeightField, parse_target
from voxplain.zoo import unet

HALO = 12  # the receptive field of a two-level U-Net reaches 11 voxels


@dataclass(frozen=True, eq=False)
class Case:
    """A network larger than its window.

    Attributes:
        network: For whole images and for windows.
        window: How it sees them.
        image: ``(1, C, *spatial)``.
    """

    network: nn.Module
    window: dict[str, Any]
    image: Tensor

    @property
    def model(self) -> Model:
        """The windowed model."""
        return Model(self.network, window=self.window)

    @property
    def layout(self) -> Layout:
        """The windows over the image."""
        return Window.model_validate(self.window).layout(tuple(self.image.shape[2:]))


def exact(rank: int, dtype: torch.dtype = torch.float64) -> Case:
    """A U-Net whose windows have a halo as large as its receptive field."""
    torch.manual_seed(4)
    network = unet(rank, 2, 3, (4, 6)).to(dtype).eval()
    shape = (60, 48) if rank == 2 else (60, 12, 12)
    size = (36, 36) if rank == 2 else (36, 12, 12)
    halo = (HALO, HALO) if rank == 2 else (HALO, 0, 0)
    window = {"size": size, "halo": halo, "overlap": 0.5, "batch": 2}
    image = torch.randn(1, 2, *shape, dtype=dtype)
    _balance(network, image)
    return Case(network, window, image)


def global_context(rank: int, blend: str = "gaussian", batch: int = 1) -> Case:
    """A network with a global receptive field, so that windows change its output."""
    torch.manual_seed(5)
    conv = getattr(nn, f"Conv{rank}d")
    network = nn.Sequential()
    network.add_module("conv1", conv(2, 3, 3, padding=1))
    network.add_module("norm", getattr(nn, f"InstanceNorm{rank}d")(3, affine=True))
    network.add_module("act", nn.ReLU())
    network.add_module("conv2", conv(3, 4, 3, padding=1))
    network.add_module("act2", nn.LeakyReLU(0.1))
    network.add_module("head", conv(4, 3, 1))
    with torch.no_grad():
        network.head.weight[:, :3] += torch.eye(3).view(3, 3, *(1,) * rank)  # each class has one
    network = network.double().eval()
    shape = (13, 9) if rank == 2 else (9, 7, 5)
    size = 6 if rank == 2 else (6, 5, 5)
    image = torch.randn(1, 2, *shape, dtype=torch.float64)
    _balance(network, image)
    return Case(network, {"size": size, "overlap": 0.4, "blend": blend, "batch": batch}, image)


@torch.no_grad()
def _balance(network: nn.Module, image: Tensor) -> None:
    """Every class is predicted somewhere."""
    output = network(image)
    network.head.bias -= output.transpose(0, 1).flatten(1).mean(1)


@dataclass
class Blended:
    """One forward through all windows, in one graph.

    Attributes:
        output: ``(1, K, *spatial)``.
        tapped_values: Per layer its activations in each window, ``(1, K, *cells)``.
    """

    output: Tensor
    tapped_values: dict[str, list[Tensor]] = field(default_factory=dict)


def blended(case: Case, image: Tensor, layers: tuple[str, ...] = ()) -> Blended:
    """F of an image, differentiable: every window with its weight, added where it lies."""
    layout, actual = case.layout, Blended(torch.zeros(()))
    padded = layout.pad(image)
    handles = []
    for layer in layers:
        actual.tapped_values[layer] = []
        handles.append(_catch(case.network.get_submodule(layer), actual.tapped_values[layer]))
    total: Tensor | None = None
    for position in layout.positions:
        part = case.network(padded[layout.region(position)]) * layout.weight(position)
        placed = torch.zeros(1, part.shape[1], *layout.padded, dtype=part.dtype)
        placed[layout.region(position)] = part
        total = placed if total is None else total + placed
    for handle in handles:
        handle.remove()
    assert total is not None
    actual.output = layout.unpad(total)
    return actual


def _catch(module: nn.Module, into: list[Tensor]) -> Any:
    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        into.append(output)
        return output.clone()

    return module.register_forward_hook(hook)


def bound(case: Case, target: dict[str, Any]) -> WeightField:
    """The field on the blended output."""
    with torch.no_grad():
        output = blended(case, case.image).output
    shape = tuple(case.image.shape[2:])
    return parse_target(target).bind(UnperturbedOutput(output, input_shape=shape))


def gradient(case: Case, point: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    """d score(F(u)) / du at a point."""
    leaf = point.clone().requires_grad_(True)
    (actual,) = torch.autograd.grad(score(blended(case, leaf).output).sum(), leaf)
    return actual


def region(rank: int) -> dict[str, Any]:
    """A box in the middle of either case's image."""
    return {"kind": "region", "label": 2, "box": ((3, 8), (2, 6), (1, 4))[:rank]}


def targets(rank: int) -> list[dict[str, Any]]:
    """Pixel-wise, softmax-linked, and a region."""
    return [
        {"kind": "pixelwise", "label": 1},
        {"kind": "volume", "label": 1},
        {"kind": "pixelwise", "label": 0, "link": "log_odds"},
        region(rank),
        {"kind": "threshold", "label": 1},
        {
            "kind": "contrast",
            "a": region(rank),
            "b": {"kind": "pixelwise", "label": 1, "link": "probability"},
        },
    ]
