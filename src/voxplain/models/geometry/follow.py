"""One forward of a network with the layout of every tensor."""

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
from voxplain.models.geometry.layout import CellLayout
from voxplain.models.geometry.operators import assume, follow
from voxplain.models.hooks import add_hook
from voxplain.models.rest import observing


@dataclass(frozen=True)
class TracedTensor:
    """The shape of a tensor of a forward, and its layout where known."""

    shape: tuple[int, ...]
    layout: CellLayout | None


@dataclass(frozen=True)
class LayerCall:
    """One call of one module.

    Attributes:
        path: Path of the module, empty for the network itself.
        inputs: The tensors among its positional arguments.
        outputs: The tensors in its output, at least one.
        ended: Number of calls that had ended, this one included.
        tensor: Identifies the first output; modules that return the same tensor share it.
    """

    path: str
    inputs: tuple[TracedTensor, ...]
    outputs: tuple[TracedTensor, ...]
    ended: int
    tensor: int


def follow_network(network: nn.Module, example: Tensor) -> list[LayerCall]:
    """All calls of modules in one forward, in the order in which they begin.

    Args:
        network: Left as it was; runs in evaluation mode without gradients.
        example: ``(B, C, *spatial)``.

    Raises:
        ModelError: If the network fails.
    """
    example = example.detach().clone().as_subclass(Tensor)  # a network may write into it
    tracker, log = Tracker(), _CallLog()
    tracker.layouts[example] = CellLayout.of_image(example.shape)
    recording = _recording(network, tracker, log)
    with failures_in_words(example), observing(network), recording, tracker:
        network(example)
    return [call for call in log.slots if call is not None]


class Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Derives the layout of each tensor from the operator that computes it.

    Below autograd one operator stands for all forms of a function, also inside TorchScript and
    custom autograd functions.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layouts: MutableMapping[Tensor, CellLayout] = WeakTensorKeyDictionary()

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Runs the operator and stores the layouts of its outputs."""
        result = func(*args, **(kwargs or {}))
        call = TracedCall.of(func, args, kwargs or {}, result, self.layouts.get)
        if call.outputs and call.known:
            self._store(call.outputs, follow(func, call))
        return result

    def assume(self, inputs: Any, outputs: Any) -> None:
        """Stores layouts by the shapes alone for outputs of a module that was not followed."""
        known = [layout for tensor in tensors_in(inputs) if (layout := self.layouts.get(tensor))]
        unknown = [tensor for tensor in tensors_in(outputs) if tensor not in self.layouts]
        if known:
            self._store(unknown, [assume(known[0], tuple(tensor.shape)) for tensor in unknown])

    def traced(self, value: Any) -> tuple[TracedTensor, ...]:
        """The tensors in a value with their layouts."""
        return tuple(TracedTensor(tuple(t.shape), self.layouts.get(t)) for t in tensors_in(value))

    def _store(self, tensors: Sequence[Tensor], layouts: Sequence[CellLayout | None]) -> None:
        for tensor, layout in zip(tensors, layouts, strict=True):
            if layout is not None:
                self.layouts[tensor] = layout
            else:
                self.layouts.pop(tensor, None)


class _CallLog:
    """The calls in the order in which they begin; the slot of a call is filled when it ends."""

    def __init__(self) -> None:
        self.slots: list[LayerCall | None] = []
        self.ended = 0
        self._numbers: MutableMapping[Tensor, tuple[int, int]] = WeakTensorKeyDictionary()

    def number(self, tensor: Tensor) -> int:
        """A number that is the same for the same tensor until it is written to."""
        version, number = self._numbers.get(tensor, (-1, 0))
        if version != tensor._version:
            number = self.ended
            self._numbers[tensor] = (tensor._version, number)
        return number


@contextmanager
def _recording(network: nn.Module, tracker: Tracker, log: _CallLog) -> Iterator[None]:
    """Hooks on all modules that record their calls inside the block."""
    with ExitStack() as stack:
        for path, module in network.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # cannot be hooked, while the operators inside are followed
            hooks = _ModuleHooks(path, tracker, log)
            add_hook(stack, module.register_forward_pre_hook, hooks.begin)
            add_hook(stack, module.register_forward_hook, hooks.end, with_kwargs=True)
        yield


@dataclass
class _ModuleHooks:
    """Records the calls of one module, which may be nested in each other."""

    path: str
    tracker: Tracker
    log: _CallLog
    begun: list[tuple[int, tuple[TracedTensor, ...]]] = field(default_factory=list)

    def begin(self, _: nn.Module, args: Any) -> None:
        # In-place layers change their input, so its layout is read before they run.
        self.begun.append((len(self.log.slots), self.tracker.traced(args)))
        self.log.slots.append(None)

    def end(self, _: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        slot, inputs = self.begun.pop()
        self.tracker.assume((args, kwargs), result)
        outputs, first = self.tracker.traced(result), next(tensors_in(result), None)
        self.log.ended += 1
        if first is not None:
            number = self.log.number(first)
            self.log.slots[slot] = LayerCall(self.path, inputs, outputs, self.log.ended, number)
