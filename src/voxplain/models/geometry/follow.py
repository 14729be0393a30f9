"""One forward of a network in which the place of every tensor is followed."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from voxplain.models.failures import failures_in_words
from voxplain.models.geometry.call import TracedCall, tensors_in
from voxplain.models.geometry.layout import AxisLayout
from voxplain.models.geometry.operators import assume, follow
from voxplain.models.hooks import add_hook
from voxplain.models.rest import observing


@dataclass(frozen=True)
class Place:
    """A tensor of one forward: its shape, and where it lies if that is known."""

    shape: tuple[int, ...]
    layout: AxisLayout | None


@dataclass(frozen=True)
class LayerCall:
    """One call of one module.

    Attributes:
        path: As in ``get_submodule``; empty for the network itself.
        inputs: The tensors among its positional arguments.
        outputs: The tensors in what it gave, at least one.
        ended: How many calls had ended when it did.
        tensor: A number of its first output; modules that pass one tensor on share it.
    """

    path: str
    inputs: tuple[Place, ...]
    outputs: tuple[Place, ...]
    ended: int
    tensor: int


def follow_network(network: nn.Module, example: Tensor) -> list[LayerCall]:
    """Every call of a module in one forward, in the order in which they begin.

    Args:
        network: Left as it was; runs in evaluation mode without gradients.
        example: ``(B, C, *spatial)``.
    """
    example = example.detach().as_subclass(Tensor)
    tracker, log = Tracker(), _Log()
    tracker.layouts[example] = AxisLayout.of_image(example.shape)
    recording = _recording(network, tracker, log)
    with failures_in_words(example), observing(network), recording, tracker:
        network(example)
    return [call for call in log.slots if call is not None]


class Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Carries the layout of each tensor from operator to operator.

    It sits below autograd, where one operator stands for all spellings of a function, and also
    sees what TorchScript and custom autograd functions compute.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layouts: MutableMapping[Tensor, AxisLayout] = WeakTensorKeyDictionary()

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Runs the operator, then notes where its outputs lie."""
        result = func(*args, **(kwargs or {}))
        call = TracedCall.of(func, args, kwargs or {}, result, self.layouts.get)
        if call.outputs and call.known:
            self._note(call.outputs, follow(func, call))
        return result

    def assume(self, given: Any, result: Any) -> None:
        """Notes the outputs of a module of whose inside nothing was seen, by their shapes."""
        known = [one for tensor in tensors_in(given) if (one := self.layouts.get(tensor))]
        unseen = [tensor for tensor in tensors_in(result) if tensor not in self.layouts]
        if known:
            self._note(unseen, [assume(known[0], tuple(tensor.shape)) for tensor in unseen])

    def places(self, value: Any) -> tuple[Place, ...]:
        """The tensors in a value with what is known of them."""
        return tuple(Place(tuple(t.shape), self.layouts.get(t)) for t in tensors_in(value))

    def _note(self, tensors: Sequence[Tensor], layouts: Sequence[AxisLayout | None]) -> None:
        for tensor, layout in zip(tensors, layouts, strict=True):
            if layout is not None:
                self.layouts[tensor] = layout
            else:
                self.layouts.pop(tensor, None)


class _Log:
    """The calls in the order in which they begin; a slot stays empty until its call ends."""

    def __init__(self) -> None:
        self.slots: list[LayerCall | None] = []
        self.ended = 0
        self._numbers: MutableMapping[Tensor, tuple[int, int]] = WeakTensorKeyDictionary()

    def number(self, tensor: Tensor) -> int:
        """The same for the same tensor, as long as nothing is written into it."""
        version, number = self._numbers.get(tensor, (-1, 0))
        if version != tensor._version:
            number = self.ended
            self._numbers[tensor] = (tensor._version, number)
        return number


@contextmanager
def _recording(network: nn.Module, tracker: Tracker, log: _Log) -> Iterator[None]:
    """Temporary hooks on every module: they note calls and are removed whatever happens."""
    with ExitStack() as stack:
        for path, module in network.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # cannot be hooked; the operators inside are followed all the same
            noter = _Noter(path, tracker, log)
            add_hook(stack, module.register_forward_pre_hook, noter.begin)
            add_hook(stack, module.register_forward_hook, noter.end, with_kwargs=True)
        yield


@dataclass
class _Noter:
    """Notes the calls of one module, which may be nested in each other."""

    path: str
    tracker: Tracker
    log: _Log
    begun: list[tuple[int, tuple[Place, ...]]] = field(default_factory=list)

    def begin(self, _: nn.Module, args: Any) -> None:
        # In-place layers change their input, so it is looked at before they run.
        self.begun.append((len(self.log.slots), self.tracker.places(args)))
        self.log.slots.append(None)

    def end(self, _: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        slot, inputs = self.begun.pop()
        self.tracker.assume((args, kwargs), result)
        outputs, first = self.tracker.places(result), next(tensors_in(result), None)
        self.log.ended += 1
        if first is not None:
            number = self.log.number(first)
            self.log.slots[slot] = LayerCall(self.path, inputs, outputs, self.log.ended, number)
