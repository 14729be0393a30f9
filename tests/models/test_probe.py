"""Geometry that cannot be derived is confirmed by impulses, corrected, or refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from networks import untouched
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.engine.context import Context
from voxplain.engine.taps import Tap
from voxplain.errors import ModelError

Move = Callable[[Tensor], Tensor]


class Behind(nn.Module):
    """A layer behind a function, pooled over what it returns."""

    def __init__(self, move: Move, stride: int = 1) -> None:
        super().__init__()
        self.move, self.layer = move, nn.Sequential(nn.AvgPool2d(stride), nn.ReLU())

    def forward(self, image: Tensor) -> Tensor:
        score = self.layer(self.move(image)).flatten(1).sum(1)
        return torch.stack([-score, score], 1)


def _cells(image: Tensor, order: Tensor) -> Tensor:
    """Voxels along the first axis in another order, by ``gather``."""
    index = order.view(1, 1, -1, 1).expand_as(image)
    return image.gather(2, index)


def _through_numpy(image: Tensor) -> Tensor:
    return torch.from_numpy(image.detach().numpy().copy())


def _swapped(image: Tensor) -> Tensor:
    first, second = image.chunk(2, 2)
    return torch.cat([second, first], 2)


def _shifted(image: Tensor) -> Tensor:
    grid = nn.functional.affine_grid(
        torch.tensor([[[1, 0, 0.0], [0, 1, 0.4]]]), list(image.shape), align_corners=False
    )
    return nn.functional.grid_sample(image, grid, align_corners=False)


def _spectral(image: Tensor) -> Tensor:
    size = [length + 6 for length in image.shape[2:]]
    padded = torch.fft.irfft2(torch.fft.rfft2(image, size), size)
    return padded[..., : image.shape[2], : image.shape[3]]


RIGHT: dict[str, Move] = {
    "numpy": _through_numpy,
    "spectrum": _spectral,
    "gather in order": lambda image: _cells(image, torch.arange(image.shape[2])),
}
WRONG: dict[str, Move] = {
    "gather": lambda image: _cells(image, torch.randperm(image.shape[2]) * 0 + 3),
    "gather in reverse": lambda image: _cells(image, torch.arange(image.shape[2]).flip(0)),
    "halves swapped": _swapped,
    "indexed": lambda image: image[:, :, (torch.arange(image.shape[2]) * 5) % image.shape[2]],
    "sampled elsewhere": _shifted,
}


def _image() -> Tensor:
    image = torch.zeros(1, 24, 16)
    image[:, 4:7, 9:12] = 1
    return image


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", sorted(RIGHT))
def test_places_that_impulses_confirm(name: str, stride: int) -> None:
    network, image = Behind(RIGHT[name], stride).eval(), _image()
    layers = Context.open(network, image[None]).layers
    with untouched(network):
        geometry = layers.placed_geometry(Tap("layer"))
    assert geometry.start == pytest.approx(((stride - 1) / 2,) * 2)
    assert geometry.stride == pytest.approx((stride,) * 2)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", sorted(WRONG))
def test_places_that_impulses_contradict_are_refused(name: str, stride: int) -> None:
    network, image = Behind(WRONG[name], stride).eval(), _image()
    with pytest.raises(
        ModelError, match=r"places of the cells of layer 'layer' .* cannot be derived"
    ):
        explain(network, image[None], {"name": "grad_cam", "layer": "layer"}, 1)


def test_a_layer_that_does_not_answer_is_refused() -> None:
    dead = Behind(lambda image: 0 * torch.fft.fft2(image).abs() - 1).eval()
    with pytest.raises(ModelError, match="cannot be derived"):
        Context.open(dead, _image()[None]).layers.placed_geometry(Tap("layer"))


def test_a_layer_that_answers_at_one_place_alone_is_refused() -> None:
    def corner(image: Tensor) -> Tensor:
        return _through_numpy(image) * (torch.arange(24) < 6).view(-1, 1)

    with pytest.raises(ModelError, match="cannot be derived"):
        Context.open(Behind(corner).eval(), _image()[None]).layers.placed_geometry(Tap("layer"))
