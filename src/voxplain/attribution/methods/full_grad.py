"""FullGrad: input times gradient plus the contributions of all biases."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from voxplain.engine.context import Context
from voxplain.engine.gradients.reducers import Reducer, TapBatch, TimesValue
from voxplain.engine.gradients.samplers import Original
from voxplain.engine.method import ChannelReduction, Method, register
from voxplain.engine.requests import GradientRequest
from voxplain.engine.rules import Plain
from voxplain.engine.stream_io import StreamResults
from voxplain.engine.taps import INPUT, Tap
from voxplain.errors import ModelError

_LINEAR = (nn.modules.conv._ConvNd, nn.Linear)
_BATCH = nn.modules.batchnorm._BatchNorm
_STORED = nn.modules.batchnorm._NormBase  # batch and instance norms, which may keep statistics
_INSTANCE = nn.modules.instancenorm._InstanceNorm


@register
class FullGrad(Method):
    """Magnitudes of input times gradient and of the contribution of every bias, added up."""

    exact_in_windows = False
    formula = "|x g| + sum over layers of up(|bias G|)"
    reference = "Srinivas and Fleuret, 2019"
    units = "score"
    positive = True
    resampling = "value"
    name: Literal["full_grad"] = "full_grad"
    channels: ChannelReduction = "sum"

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """One pass, with a tap at every layer that adds a bias."""
        biases = tuple(
            GradientRequest(Original(), reducer, Plain(), (tap,))
            for tap, reducer in layers_with_bias(context).items()
        )
        return (GradientRequest(Original(), TimesValue), *biases)

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """The sum of all contributions on the image grid, one channel."""
        image, *biases = results
        total = image[INPUT].abs().sum(dim=0, keepdim=True)
        for stream in biases:
            ((tap, contribution),) = stream.items()
            if context.layers.geometry(tap).spatial:
                strength = contribution.abs().sum(dim=0, keepdim=True)
                total = total + context.layers.on_image(tap, strength, "sum")
        return {None: total}


def layers_with_bias(context: Context) -> dict[Tap, Callable[[], Reducer]]:
    """A tap and a reducer for every call of every layer of the network that adds a bias.

    Raises:
        ModelError: If there is none.
    """
    reducers: dict[Tap, Callable[[], Reducer]] = {}
    for info in context.layers.listed:
        module = context.model.network.get_submodule(info.path)
        if not _adds_bias(module):
            continue
        for call in range(info.calls):
            path = info.path if info.calls == 1 else f"{info.path}#{call}"
            reducers[Tap(path)] = partial(BiasTimesGradient, module, context.layout is not None)
    if not reducers:
        raise ModelError("full_grad needs layers with biases or norms, and the network has none")
    return reducers


def _adds_bias(module: nn.Module) -> bool:
    if isinstance(module, _LINEAR):
        return module.bias is not None
    return isinstance(module, (_BATCH, _INSTANCE, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm))


class BiasTimesGradient(Reducer):
    """b * G of one layer at one point, ``(K, *cells)``.

    The bias of a norm of the data is what its output y has beside its linear part: y - J x, J the
    Jacobian.

    Args:
        module: The layer.
        windowed: Whether the first axis of positions counts windows.
    """

    def __init__(self, module: nn.Module, windowed: bool) -> None:
        self._module, self._windowed = module, windowed
        self._product: Tensor | None = None

    def update(self, points: TapBatch) -> None:
        """Takes the single point of the stream."""
        self._product = self._bias(points.value[0]) * points.gradient[0]

    def result(self) -> Tensor:
        """The product."""
        if self._product is None:
            raise ValueError("no point was seen")
        return self._product

    def _bias(self, output: Tensor) -> Tensor:
        module = self._module
        if isinstance(module, _STORED) and module.running_mean is not None:
            return _column(_stored_norm_bias(module), output)
        if isinstance(module, _LINEAR):
            return _parameter(module, "bias", output, 0.0)
        shift = _parameter(module, "bias", output, 0.0)
        return shift + (output - shift) * self._kept(output, shift)

    def _kept(self, output: Tensor, shift: Tensor) -> Tensor:
        """V / (v + eps): the variance of the normalized values over their group."""
        module = self._module
        scale = _parameter(module, "weight", output, 1.0)
        normalized = (output - shift) / torch.where(scale == 0, torch.ones_like(scale), scale)
        inner = tuple(range(2 if self._windowed else 1, output.ndim))
        if isinstance(module, nn.RMSNorm):
            return normalized.square().mean(dim=0, keepdim=True)
        if isinstance(module, nn.LayerNorm):
            return torch.var(normalized, dim=0, correction=0, keepdim=True)
        if isinstance(module, nn.GroupNorm):
            grouped = normalized.view(module.num_groups, -1, *normalized.shape[1:])
            axes = (1, *(axis + 1 for axis in inner))
            spread = torch.var(grouped, dim=axes, correction=0, keepdim=True).expand_as(grouped)
            return spread.flatten(0, 1)
        return torch.var(normalized, dim=inner, correction=0, keepdim=True)


def _stored_norm_bias(module: nn.modules.batchnorm._NormBase) -> Tensor:
    mean, variance = module.running_mean, module.running_var
    if mean is None or variance is None:
        raise ValueError("a norm without running statistics normalizes the data")
    scale = torch.rsqrt(variance + module.eps)
    if module.weight is None:
        return -mean * scale
    return module.bias - module.weight * mean * scale


def _parameter(module: nn.Module, name: str, like: Tensor, default: float) -> Tensor:
    values = getattr(module, name, None)
    if not isinstance(values, Tensor):
        return torch.full_like(like[:, None].flatten(1)[:, :1], default).view(_ones(like))
    return _column(values, like)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.detach().to(like).view(_ones(like))


def _ones(like: Tensor) -> tuple[int, ...]:
    return (-1, *(1,) * (like.ndim - 1))
