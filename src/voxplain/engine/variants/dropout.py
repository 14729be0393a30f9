"""Networks that drop the same units in every call: one draw of Monte Carlo dropout."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from voxplain.engine.randomness import generator
from voxplain.models.copies import copied
from voxplain.models.model import Model

_BY_CHANNEL = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_CALLS: Mapping[Callable[..., Any], int | None] = {
    functional.dropout: None,
    torch.dropout: None,
    functional.dropout1d: 1,
    functional.dropout2d: 2,
    functional.dropout3d: 3,
    torch.feature_dropout: 0,
}
"""Functions that drop units, and how many spatial axes a dropped channel has: None where single
numbers are dropped, 0 where it depends on the input."""

NO_DROPOUT = (
    "the network has no dropout layer (nn.Dropout, nn.Dropout1d, 2d or 3d with p > 0) and calls no "
    "dropout of torch.nn.functional"
)


@dataclass(frozen=True)
class DropoutPlaces:
    """Where a network can drop units.

    Attributes:
        layers: Dropout layers by path, each with the probability that it drops a unit.
        calls: Calls of functions such as ``torch.nn.functional.dropout`` in one forward, outside
            of these layers.
    """

    layers: Mapping[str, float]
    calls: int

    def __bool__(self) -> bool:
        return bool(self.layers) or self.calls > 0


def dropout_layers(network: nn.Module) -> dict[str, float]:
    """The dropout layers by path, each with the probability that it drops a unit."""
    return {
        path: float(layer.p)
        for path, layer in network.named_modules()
        if isinstance(layer, (nn.Dropout, *_BY_CHANNEL)) and layer.p > 0
    }


def dropout_places(
    model: Model, images: Tensor, spacing: Sequence[float] | None = None
) -> DropoutPlaces:
    """Where a network drops units in a forward, found by running a copy of it.

    Args:
        model: Left as it was.
        images: ``(B, C, *spatial)``.
        spacing: Millimeters per voxel, for windows.
    """
    other = copied(model)
    _without_own_calls(other.network)
    counts = [0]
    other.network.forward = _ForwardUnder(other.network.forward, lambda: _CountCalls(counts))
    with torch.no_grad(), other.at_rest():
        other.output(images, spacing)
    return DropoutPlaces(dropout_layers(model.network), max(counts))


def dropout_draw(model: Model, key: str, draw: int) -> Model:
    """A copy of a network that drops the same units in every call.

    Everything else is in evaluation mode. The dropped units depend on key and draw alone, not on
    the image, the window or the batch, so that all points of an explanation go through one
    network (Gal and Ghahramani, 2016). Dropout that is called as a function is switched on as well,
    where the call says the probability; attention that is told a probability of 0 at rest is not.

    Args:
        model: Left as it was.
        key: Seed of the draws.
        draw: Number of the draw.
    """
    other = copied(model)
    calls = _CallCounter()
    other.network.register_forward_pre_hook(calls)
    _without_own_calls(other.network)
    for path in dropout_layers(other.network):
        layer = other.network.get_submodule(path)
        layer.register_forward_hook(_DropUnits(path, (key, draw), calls))
    seed = (key, draw)
    other.network.forward = _ForwardUnder(other.network.forward, lambda: _DropInCalls(seed))
    return other


def _without_own_calls(network: nn.Module) -> None:
    """Makes dropout layers the identity, as they are at rest, without a call of a function."""
    for layer in network.modules():
        if isinstance(layer, (nn.Dropout, *_BY_CHANNEL)):
            vars(layer)["forward"] = _unchanged


def _unchanged(values: Tensor) -> Tensor:
    return values


class _ForwardUnder:
    """The forward of a network under a mode of its own in every call, in every thread."""

    def __init__(self, forward: Callable[..., Any], mode: Callable[[], TorchFunctionMode]) -> None:
        self.forward, self.mode = forward, mode

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        with self.mode():
            return self.forward(*inputs, **options)


class _DropoutCalls(TorchFunctionMode):
    """Sees the calls of functions that drop units."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function not in _CALLS:
            return function(*args, **(kwargs or {}))
        values, p = _arguments(*args, **(kwargs or {}))
        if p <= 0:
            return values
        self.calls += 1
        return self.dropped(values, p, _CALLS[function])

    def dropped(self, values: Tensor, p: float, axes: int | None) -> Tensor:
        """What becomes of the values; here they stay."""
        return values


def _arguments(input: Tensor, p: float = 0.5, *_: Any, **__: Any) -> tuple[Tensor, float]:
    """The values and the probability, whichever function it is, whether it is at rest or not."""
    return input, float(p)


class _CountCalls(_DropoutCalls):
    """Writes down how many calls each forward has."""

    def __init__(self, counts: list[int]) -> None:
        super().__init__()
        self.counts = counts

    def __exit__(self, *error: Any) -> None:
        self.counts.append(self.calls)
        super().__exit__(*error)  # type: ignore[no-untyped-call]


class _DropInCalls(_DropoutCalls):
    """Drops units in every call, by the number of the call."""

    def __init__(self, draw: tuple[str, int]) -> None:
        super().__init__()
        self.draw = draw

    def dropped(self, values: Tensor, p: float, axes: int | None) -> Tensor:
        by_channel = axes is not None
        batched = axes in (None, 0) or values.ndim == 2 + (axes or 0)
        units = values.shape[1:] if batched else values.shape
        chosen = tuple(units[:1] if by_channel else units)
        factors = _factors((*self.draw, "call", self.calls), chosen, p)
        rest = (1,) * (len(units) - len(chosen))
        return values * factors.view(*(1,) * batched, *chosen, *rest).to(values)


class _CallCounter(dict[int, dict[str, int]]):
    """By thread, how often each layer has run since the network started; copied with it."""

    def __call__(self, *_: Any) -> None:
        self[get_ident()] = {}

    def next(self, path: str) -> int:
        """The number of this call of a layer."""
        counts = self.setdefault(get_ident(), {})
        counts[path] = counts.get(path, -1) + 1
        return counts[path]


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
        call = self.calls.next(self.path)
        units = output.shape[1:2] if isinstance(layer, _BY_CHANNEL) else output.shape[1:]
        factors = _factors((*self.draw, self.path, call), tuple(units), float(layer.p))
        return output * factors.view(1, *units, *(1,) * (output.ndim - 1 - len(units))).to(output)


def _factors(key: tuple[object, ...], shape: tuple[int, ...], p: float) -> Tensor:
    """1 / (1 - p) for kept units, 0 for dropped ones; axes of size one change no draw."""
    source = generator("dropout", *key, [size for size in shape if size != 1])
    kept = torch.rand(math.prod(shape), generator=source) >= p
    return kept.view(shape).double() / (1 - p) if p < 1 else torch.zeros(shape)
