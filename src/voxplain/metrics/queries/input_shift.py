"""Networks that subtract a constant from their image, within their first layers where possible."""

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
    """A copy that gives for x + c the output that the network gives for x.

    The layers that read the image absorb the constant into their bias or running mean, so that
    backward rules see the layers they know. A convolution that pads with zeros pads with the
    constant instead. If the copy then gives another output, because something else reads the image
    as well, the constant is subtracted from the image before the first layer.

    Args:
        model: Left as it was.
        example: ``(1, C, *spatial)``, what one call of the network sees.
        constant: c, ``(C, 1, ..., 1)``.
    """
    other = copied(model)
    shift = constant.to(example).expand(example.shape[1:])
    for path in _layers_reading(model, example):
        _absorb(other.network.get_submodule(path), shift)
    with torch.no_grad(), model.at_rest(), other.at_rest():
        expected, output = model(example), other(example + shift)
    if _agree(expected, output):
        return other
    other = copied(model)
    other.network.register_forward_pre_hook(_Subtraction(constant), prepend=True)
    return other


def _layers_reading(model: Model, example: Tensor) -> list[str]:
    """Convolutions and norms whose input is the image, and linear layers that read it flat."""
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
    """Shifts bias or running mean of a layer in place, and the padding of a convolution."""
    weight: Any = layer.weight
    with torch.no_grad():
        if isinstance(layer, _BatchNorm):
            if layer.running_mean is not None:  # else it takes the mean of what it sees
                layer.running_mean += shift.flatten(1)[:, 0]
            return
        if isinstance(layer, nn.Linear):
            response = weight @ shift.flatten().to(weight)
        else:
            response = _response_to_constant(layer, weight, shift.flatten(1)[:, 0].to(weight))
            _pad_with(layer, shift)
        bias = layer.bias if isinstance(layer.bias, Tensor) else torch.zeros_like(response)
        layer.bias = nn.Parameter(bias - response)


def _response_to_constant(layer: Any, weight: Tensor, values: Tensor) -> Tensor:
    """The output of a convolution without bias for a constant image, ``(out_channels,)``."""
    kernels = weight.flatten(2).sum(dim=2)  # (out, in / groups)
    groups = layer.groups
    products = kernels.view(groups, -1, kernels.shape[1]) * values.view(groups, 1, -1)
    return products.sum(dim=2).flatten()


def _pad_with(layer: Any, shift: Tensor) -> None:
    """Pads with the constant instead of zeros; other padding modes repeat the image anyway."""
    widths = _padding_widths(layer)
    if layer.padding_mode != "zeros" or not any(widths):
        return
    layer.padding = (0,) * (shift.ndim - 1)
    inside = functional.pad(torch.ones_like(shift), widths)
    constant = shift.flatten(1)[:, 0].view(-1, *(1,) * (shift.ndim - 1))
    border = (1 - inside) * constant

    def pad(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        padded = functional.pad(inputs[0], widths)
        return (padded + border.to(padded),)

    layer.register_forward_pre_hook(pad)


def _padding_widths(layer: Any) -> list[int]:
    """Voxels that a convolution adds at each end, the last axis first, as ``pad`` takes them."""
    if layer.padding == "valid":
        return [0] * (2 * len(layer.kernel_size))
    if layer.padding == "same":
        total = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [end for both in reversed(total) for end in (both // 2, both - both // 2)]
    return [end for width in reversed(layer.padding) for end in (width, width)]


def _agree(expected: Tensor, output: Tensor) -> bool:
    tolerance = 1e-9 if expected.dtype is torch.float64 else 1e-4
    return bool((expected - output).abs().amax() <= tolerance * expected.abs().amax())


class _Subtraction:
    """A hook that subtracts a constant; an object, since networks are copied with their hooks."""

    def __init__(self, constant: Tensor) -> None:
        self.constant = constant

    def __call__(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        image, *rest = inputs
        return (image - self.constant.to(image), *rest)
