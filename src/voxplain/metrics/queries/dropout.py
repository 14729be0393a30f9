"""Networks that leave out units for good: one draw of Monte Carlo dropout in every call."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from voxplain.engine.randomness import generator
from voxplain.models.copies import copied
from voxplain.models.model import Model

_BY_CHANNEL = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def dropout_layers(network: nn.Module) -> dict[str, float]:
    """The layers that drop units, and with what probability, by path."""
    return {
        path: float(layer.p)
        for path, layer in network.named_modules()
        if isinstance(layer, (nn.Dropout, *_BY_CHANNEL)) and layer.p > 0
    }


def dropout_draw(model: Model, key: str, draw: int) -> Model:
    """A copy whose dropout layers drop units while everything else is at rest.

    The units are those of the draw, whatever the image, the window or the number of images: all
    points of an explanation ask one network (Gal and Ghahramani, 2016).

    Args:
        model: Left as it was.
        key: What the draws depend on, beside their number.
        draw: Which of the thinned networks.
    """
    other = copied(model)
    calls = _Calls()
    other.network.register_forward_pre_hook(calls)
    for path in dropout_layers(other.network):
        layer = other.network.get_submodule(path)
        layer.register_forward_hook(_Dropping(path, (key, draw), calls))
    return other


class _Calls(dict[str, int]):
    """How often each layer has run since the network started; networks are copied with it."""

    def __call__(self, *_: Any) -> None:
        self.clear()


class _Dropping:
    """A hook behind one dropout layer, which at rest hands on what it is given.

    Args:
        path: Of the layer.
        draw: What its units depend on.
        calls: Which call of the layer it is.
    """

    def __init__(self, path: str, draw: tuple[str, int], calls: _Calls) -> None:
        self.path, self.draw, self.calls = path, draw, calls

    def __call__(self, layer: Any, _: tuple[Any, ...], output: Tensor) -> Tensor:
        call = self.calls.get(self.path, 0)
        self.calls[self.path] = call + 1
        each = output.shape[1:2] if isinstance(layer, _BY_CHANNEL) else output.shape[1:]
        kept = _kept((*self.draw, self.path, call), tuple(each), float(layer.p))
        return output * kept.view(1, *each, *(1,) * (output.ndim - 1 - len(each))).to(output)


def _kept(key: tuple[object, ...], shape: tuple[int, ...], p: float) -> Tensor:
    """1 / (1 - p) for units that stay, 0 for the others; axes of size one change no draw."""
    source = generator("dropout", *key, [size for size in shape if size != 1])
    stays = torch.rand(math.prod(shape), generator=source) >= p
    return stays.view(shape).double() / (1 - p) if p < 1 else torch.zeros(shape)


__all__ = ["dropout_draw", "dropout_layers"]
