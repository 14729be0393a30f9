"""One forward of a network in which the place of every tensor is followed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from voxplain.geometry.call import Call, tensors_in
from voxplain.geometry.layout import Layout
from voxplain.geometry.operators import assume, follow
from voxplain.observing import observing


@dataclass(frozen=True)
class LayerCall:
    """One call of one module.

    Attributes:
        path: As in ``get_submodule``.
        shapes: Shapes of the tensors that came out.
        layout: Where the first of them lies, None where nothing is known.
    """

    path: str
    shapes: tuple[tuple[int, ...], ...]
    layout: Layout | None


def follow_network(
    network: nn.Module, example: Tensor, paths: Iterable[str] | None = None
) -> list[LayerCall]:
    """Every call of the chosen modules in one forward, in the order in which they begin.

    Args:
        network: Left as it was; runs in evaluation mode without gradients.
        example: ``(B, C, *spatial)``.
        paths: Which modules; all below the root where None.
    """
    example = example.detach().as_subclass(Tensor)
    names = {name for name, _ in network.named_modules() if name} if paths is None else set(paths)
    tracker = Tracker()
    tracker.layouts[example] = Layout.of_image(example.shape)
    slots: list[LayerCall | None] = []
    with observing(network), _recording(network, names, tracker, slots), tracker:
        network(example)
    return [call for call in slots if call is not None]


class Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Carries the layout of each tensor from operator to operator.

    It sits below autograd, where one operator stands for all spellings of a function, and also
    sees what TorchScript and custom autograd functions compute.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layouts: MutableMapping[Tensor, Layout] = WeakTensorKeyDictionary()

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Runs the operator, then notes where its outputs lie."""
        result = func(*args, **(kwargs or {}))
        call = Call.of(func, args, kwargs or {}, result, self.layouts.get)
        if call.outputs and call.known:
            self._note(call.outputs, follow(func, call))
        return result

    def assume(self, given: Any, result: Any) -> None:
        """Notes the outputs of a module of whose inside nothing was seen, by their shapes."""
        known = [one for tensor in tensors_in(given) if (one := self.layouts.get(tensor))]
        unseen = [tensor for tensor in tensors_in(result) if tensor not in self.layouts]
        if known:
            self._note(unseen, [assume(known[0], tuple(tensor.shape)) for tensor in unseen])

    def _note(self, tensors: Sequence[Tensor], layouts: Sequence[Layout | None]) -> None:
        for tensor, layout in zip(tensors, layouts, strict=True):
            if layout is not None:
                self.layouts[tensor] = layout
            else:
                self.layouts.pop(tensor, None)


@contextmanager
def _recording(
    network: nn.Module, names: set[str], tracker: Tracker, slots: list[LayerCall | None]
) -> Iterator[None]:
    """Temporary hooks on every module: they note calls and are removed whatever happens."""
    with ExitStack() as stack:
        for path, module in network.named_modules():
            noter = _Noter(path, path in names, tracker, slots)
            stack.callback(module.register_forward_pre_hook(noter.begin).remove)
            stack.callback(module.register_forward_hook(noter.end, with_kwargs=True).remove)
        yield


@dataclass
class _Noter:
    """Notes the calls of one module, which may be nested in each other."""

    path: str
    wanted: bool
    tracker: Tracker
    slots: list[LayerCall | None]
    begun: list[int] = field(default_factory=list)

    def begin(self, *_: Any) -> None:
        self.begun.append(len(self.slots))
        self.slots.append(None)

    def end(self, _: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        slot, tensors = self.begun.pop(), list(tensors_in(result))
        self.tracker.assume((args, kwargs), result)
        if self.wanted and tensors:
            shapes = tuple(tuple(tensor.shape) for tensor in tensors)
            self.slots[slot] = LayerCall(self.path, shapes, self.tracker.layouts.get(tensors[0]))
