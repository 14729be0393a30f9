"""Taps: activations of layers as a forward passes them, with nothing left behind."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from voxplain.errors import ModelError
from voxplain.models.geometry.call import tensors_in
from voxplain.models.hooks import add_hook
from voxplain.models.layers import find_layer

Side = Literal["output", "input"]


@dataclass(frozen=True, order=True)
class Tap:
    """A place in the network: the output or input of a layer.

    Attributes:
        path: As in ``get_submodule``; ``path#2`` means the third call of a layer that is used
            more than once (the last call is taken without it), ``path[1]`` the second tensor of a
            layer that returns several (the first is taken without it).
        side: What enters or what leaves the layer.
    """

    path: str
    side: Side = "output"

    @property
    def module(self) -> str:
        """The path without the numbers of the call and of the tensor."""
        return self.path.partition("#")[0].partition("[")[0]

    @property
    def tensor(self) -> int:
        """The number of the tensor among those that the layer returns."""
        number = self.path.partition("#")[0].partition("[")[2].removesuffix("]")
        if number and not number.isdigit():
            raise ModelError(f"layer {self.path!r}: in brackets is the number of a tensor, as [0]")
        return int(number) if number else 0

    @property
    def call(self) -> int:
        """The number of the call, -1 for the last one."""
        number = self.path.partition("#")[2]
        if number and not number.isdigit():
            raise ModelError(f"layer {self.path!r}: what follows # is the number of a call, as #0")
        return int(number) if number else -1


INPUT = Tap("", "input")
"""The place that is the input of the network itself."""

Changes = Mapping[Tap, Callable[[Tensor], Tensor]]
"""What is put in place of the value at some taps, as a function of that value."""


class Tapped:
    """What the taps of one forward caught: per tap, the tensors of every call."""

    def __init__(self, taps: tuple[Tap, ...], changes: Changes | None = None) -> None:
        self._calls: dict[Tap, list[Tensor]] = {tap: [] for tap in taps}
        self._changes = changes or {}

    def __getitem__(self, tap: Tap) -> Tensor:
        calls = self._calls[tap]
        if not calls:
            raise ModelError(f"layer {tap.path!r} takes no part in the output for this image")
        if tap.call >= len(calls):
            raise ModelError(
                f"layer {tap.module!r} is called {len(calls)} times, numbered from #0; "
                f"there is no {tap.path!r}"
            )
        return calls[tap.call]

    def calls(self, tap: Tap) -> int:
        """How often the layer was called."""
        return len(self._calls[tap])

    def repeated(self, tap: Tap) -> str | None:
        """A sentence where the layer was called more than once and the tap does not say which."""
        if tap.call >= 0 or self.calls(tap) < 2:
            return None
        return (
            f"layer {tap.path!r} is called {self.calls(tap)} times; its last call is taken, "
            f"{tap.path}#0 would be the first"
        )

    def catch(self, tap: Tap, value: Any) -> Any:
        """Keeps the tensor and hands on a copy, so that in-place layers cannot alter it."""
        tensors = list(tensors_in(value))
        if not tensors or isinstance(value, Mapping):
            raise ModelError(
                f"layer {tap.path!r} has a {type(value).__name__} as its {tap.side}, no tensor; "
                "choose a layer inside it"
            )
        if tap.tensor >= len(tensors):
            raise ModelError(
                f"layer {tap.module!r} returns {len(tensors)} tensor{'s' * (len(tensors) > 1)}, "
                f"numbered from [0]; there is no {tap.path!r}"
            )
        kept = iter(range(len(tensors)))
        return _mapped(
            value, lambda each: self._keep(tap, each) if next(kept) == tap.tensor else each
        )

    def _keep(self, tap: Tap, value: Tensor) -> Tensor:
        change = self._changes.get(tap)
        if change is not None and tap.call in (-1, len(self._calls[tap])):
            value = change(value)
        self._calls[tap].append(value)
        return value.clone()


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A nest of tuples and lists with its tensors changed, in order."""
    if isinstance(value, Tensor):
        return change(value)
    if not isinstance(value, (tuple, list)):
        return value
    items = [_mapped(item, change) for item in value]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


@contextlib.contextmanager
def tapping(
    network: nn.Module, taps: tuple[Tap, ...], changes: Changes | None = None
) -> Iterator[Tapped]:
    """Catches activations during the forwards inside the block, in the thread of the block.

    Args:
        network: The network.
        taps: Where to look.
        changes: Other values to go on with at some of the taps; what is caught is the changed
            value. A tap without a call number changes every call of its layer.

    Raises:
        ModelError: With the nearest names, if a layer does not exist.
    """
    tapped = Tapped(taps, changes)
    with contextlib.ExitStack() as stack:
        for tap in taps:
            _hook(stack, find_layer(network, tap.module), tap, tapped)
        yield tapped


def _hook(stack: contextlib.ExitStack, layer: nn.Module, tap: Tap, tapped: Tapped) -> None:
    if tap.side == "input":

        def before(_: nn.Module, inputs: tuple[Any, ...]) -> Any:
            if not inputs:
                raise ModelError(f"layer {tap.path!r} is called with keywords only; tap its output")
            return (tapped.catch(tap, inputs[0]), *inputs[1:])

        add_hook(stack, layer.register_forward_pre_hook, before)
        return

    def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        return tapped.catch(tap, output)

    add_hook(stack, layer.register_forward_hook, after)


@dataclass(frozen=True, eq=False)
class InterpolatedActivation:
    """A(b) + a (A(x) - A(b)) in place of the activation A(x) of a layer.

    Attributes:
        tap: The layer.
        start: The images b, ``(k or 1, C, *spatial)``.
        along: The positions a, ``(k,)``.
    """

    tap: Tap
    start: Tensor
    along: Tensor

    def point(self, index: int) -> InterpolatedActivation:
        """The same for one of the points."""
        start = self.start[index : index + 1] if len(self.start) > 1 else self.start
        return replace(self, start=start, along=self.along[index : index + 1])

    def repeated(self) -> InterpolatedActivation:
        """The same for points that are given twice."""
        start = torch.cat([self.start, self.start]) if len(self.start) > 1 else self.start
        return replace(self, start=start, along=torch.cat([self.along, self.along]))

    def changes(
        self, network: nn.Module, call: Callable[[Tensor], Tensor], start: Tensor
    ) -> Changes:
        """What to put in place at the layer, after one look at what it gives for the start.

        A layer that is called more than once moves at its last call, as taps catch it.

        Args:
            network: To be tapped.
            call: Runs it.
            start: The images b, or their windows.
        """
        with torch.no_grad(), tapping(network, (self.tap,)) as tapped:
            call(start)
        base, last = tapped[self.tap], tapped.calls(self.tap) - 1
        numbers = itertools.count()

        def change(value: Tensor) -> Tensor:
            if self.tap.call == -1 and next(numbers) < last:
                return value
            begin = base.repeat(len(value) // len(base), *(1,) * (base.ndim - 1))
            along = self.along.to(value).repeat_interleave(len(value) // len(self.along))
            return begin + along.view(-1, *(1,) * (value.ndim - 1)) * (value - begin)

        return {self.tap: change}
