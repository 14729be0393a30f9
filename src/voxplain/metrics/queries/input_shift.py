"""Networks that take a constant away from their image: in the first layers, where that is exact."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from voxplain.engine.taps import Tap, tapping
from voxplain.models.copies import copied
from voxplain.models.model import Model

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def shifted_input_network(model: Model, example: Tensor, constant: Tensor) -> Model:
    """A copy that gives for x + c what the network gives for x.

    The layers that read the image take the constant into their bias or running mean, so that
    backward rules meet the layers that they know. A convolution that pads with zeros pads with the
    constant instead. Where something else reads the image too, the constant is subtracted before
    anything else.

    Args:
        model: Left as it was.
        example: ``(1, C, *spatial)``, what one call of the network sees.
        constant: c, ``(C, 1, ..., 1)``.
    """
    other = copied(model)
    shift = constant.to(example).expand(example.shape[1:])
    for path in _readers(model, example):
        _absorb(other.network.get_submodule(path), shift)
    with torch.no_grad(), model.at_rest(), other.at_rest():
        expected, found = model(example), other(example + shift)
    if _same(expected, found):
        return other
    other = copied(model)
    other.network.register_forward_pre_hook(_Subtraction(constant), prepend=True)
    return other


def _readers(model: Model, example: Tensor) -> list[str]:
    """Convolutions and norms that the image enters as it is, linear layers that it enters flat."""
    layers = {
        path: layer
        for path, layer in model.network.named_modules()
        if isinstance(layer, (*_CONVOLUTIONS, nn.Linear, _BatchNorm))
    }
    taps = {path: Tap(path, "input") for path in layers}
    with torch.no_grad(), model.at_rest(), tapping(model.network, tuple(taps.values())) as tapped:
        model(example)
    shapes = {
        path: example.flatten(1).shape if isinstance(layer, nn.Linear) else example.shape
        for path, layer in layers.items()
    }
    return [
        path
        for path, tap in taps.items()
        if tapped.calls(tap) == 1
        and tapped[tap].shape == shapes[path]
        and torch.equal(tapped[tap].flatten(), example.flatten())
    ]


def _absorb(layer: nn.Module, shift: Tensor) -> None:
    """Changes the bias or mean of a layer in place, and what a convolution pads with."""
    weight: Any = layer.weight
    with torch.no_grad():
        if isinstance(layer, _BatchNorm):
            if layer.running_mean is not None:  # else it takes the mean of what it sees
                layer.running_mean += shift.flatten(1)[:, 0]
            return
        if isinstance(layer, nn.Linear):
            taken = weight @ shift.flatten().to(weight)
        else:
            taken = _of_constant(layer, weight, shift.flatten(1)[:, 0].to(weight))
            _pad_with(layer, shift)
        before = layer.bias if isinstance(layer.bias, Tensor) else torch.zeros_like(taken)
        layer.bias = nn.Parameter(before - taken)


def _of_constant(layer: Any, weight: Tensor, values: Tensor) -> Tensor:
    """What a convolution makes of a constant image, ``(out_channels,)``."""
    kernels = weight.flatten(2).sum(dim=2)  # (out, in / groups)
    groups = layer.groups
    each = kernels.view(groups, -1, kernels.shape[1]) * values.view(groups, 1, -1)
    return each.sum(dim=2).flatten()


def _pad_with(layer: Any, shift: Tensor) -> None:
    """Zeros around the image become the constant; other paddings continue the image anyway."""
    ends = _ends(layer)
    if layer.padding_mode != "zeros" or not any(ends):
        return
    layer.padding = (0,) * (shift.ndim - 1)
    inside = functional.pad(torch.ones_like(shift), ends)
    constant = shift.flatten(1)[:, 0].view(-1, *(1,) * (shift.ndim - 1))
    around = (1 - inside) * constant

    def pad(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        padded = functional.pad(inputs[0], ends)
        return (padded + around.to(padded),)

    layer.register_forward_pre_hook(pad)


def _ends(layer: Any) -> list[int]:
    """Voxels that a convolution pads with, the last axis first, as ``pad`` takes them."""
    if layer.padding == "valid":
        return [0] * (2 * len(layer.kernel_size))
    if layer.padding == "same":
        total = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [part for all in reversed(total) for part in (all // 2, all - all // 2)]
    return [part for side in reversed(layer.padding) for part in (side, side)]


def _same(expected: Tensor, found: Tensor) -> bool:
    tolerance = 1e-9 if expected.dtype is torch.float64 else 1e-4
    return bool((expected - found).abs().amax() <= tolerance * expected.abs().amax())


class _Subtraction:
    """A hook; an object of its own, because networks are copied with their hooks."""

    def __init__(self, constant: Tensor) -> None:
        self.constant = constant

    def __call__(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        image, *rest = inputs
        return (image - self.constant.to(image), *rest)


__all__ = ["shifted_input_network"]
