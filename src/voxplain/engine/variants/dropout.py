"""Networks that drop the same units in every call: one draw of Monte Carlo dropout."""

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
    """The dropout layers by path, each with the probability that it drops a unit."""
    return {
        path: float(layer.p)
        for path, layer in network.named_modules()
        if isinstance(layer, (nn.Dropout, *_BY_CHANNEL)) and layer.p > 0
    }


def dropout_draw(model: Model, key: str, draw: int) -> Model:
    """A copy of a network that drops the same units in every call.

    Everything else is in evaluation mode. The dropped units depend on key and draw alone, not on
    the image, the window or the batch, so that all points of an explanation go through one
    network (Gal and Ghahramani, 2016).

    Args:
        model: Left as it was.
        key: Seed of the draws.
        draw: Number of the draw.
    """
    other = copied(model)
    calls = _CallCounter()
    other.network.register_forward_pre_hook(calls)
    for path in dropout_layers(other.network):
        layer = other.network.get_submodule(path)
        layer.register_forward_hook(_DropUnits(path, (key, draw), calls))
    return other


class _CallCounter(dict[str, int]):
    """How often each layer has run since the network started; copied with the network."""

    def __call__(self, *_: Any) -> None:
        self.clear()


class _DropUnits:
    """A forward hook that drops units of a dropout layer, which is the identity at rest.

    Args:
        path: Of the layer.
        draw: Seed of its units: key and number of the draw.
        calls: Tells which call of the layer it is.
    """

    def __init__(self, path: str, draw: tuple[str, int], calls: _CallCounter) -> None:
        self.path, self.draw, self.calls = path, draw, calls

    def __call__(self, layer: Any, _: tuple[Any, ...], output: Tensor) -> Tensor:
        call = self.calls.get(self.path, 0)
        self.calls[self.path] = call + 1
        units = output.shape[1:2] if isinstance(layer, _BY_CHANNEL) else output.shape[1:]
        factors = _factors((*self.draw, self.path, call), tuple(units), float(layer.p))
        return output * factors.view(1, *units, *(1,) * (output.ndim - 1 - len(units))).to(output)


def _factors(key: tuple[object, ...], shape: tuple[int, ...], p: float) -> Tensor:
    """1 / (1 - p) for kept units, 0 for dropped ones; axes of size one change no draw."""
    source = generator("dropout", *key, [size for size in shape if size != 1])
    kept = torch.rand(math.prod(shape), generator=source) >= p
    return kept.view(shape).double() / (1 - p) if p < 1 else torch.zeros(shape)
