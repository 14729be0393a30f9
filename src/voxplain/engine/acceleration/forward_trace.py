"""Forward trace: when modules ran in one forward, and when their parameters were used."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from voxplain.engine.taps import Tap
from voxplain.engine.tensors import storage_key, tensors_in, version
from voxplain.models.hooks import ThreadHook, add_hook, lasting_attributes
from voxplain.models.model import Model


@dataclass(frozen=True)
class ModuleSpan:
    """The time span in which a module ran.

    Attributes:
        path: Of the module.
        begin: Start of its first call, counted in events.
        end: End of its last call.
        calls: Number of its calls.
        repeatable: Whether its output can be reused instead of running it again: it was called
            once, returned tensors of its own that were never written to, and had no side effects.
    """

    path: str
    begin: int
    end: int
    calls: int
    repeatable: bool


@dataclass(frozen=True)
class ForwardTrace:
    """One forward of a network.

    Attributes:
        spans: By path, the modules that ran.
        first_uses: By path, when a parameter of the module itself was first used.
        by_last_use: Paths of the modules with parameters of their own, in the order in which one
            of these was last used.
    """

    spans: Mapping[str, ModuleSpan]
    first_uses: Mapping[str, int]
    by_last_use: tuple[str, ...]

    def untouched(self, changed: Collection[str], taps: Collection[Tap] = ()) -> frozenset[str]:
        """The repeatable modules that end before any changed module or tap can affect them.

        Args:
            changed: Paths of modules whose own parameters differ.
            taps: Taps whose values are changed, or must be those of each network.
        """
        limits = [self._begin(path) for path in changed]
        limits += [self._time_of(tap) for tap in taps]
        limit = min(limits, default=math.inf)
        return frozenset(
            span.path for span in self.spans.values() if span.repeatable and span.end < limit
        )

    def _begin(self, path: str) -> float:
        span = self.spans.get(path)
        begin = span.begin if span else math.inf
        return min(begin, self.first_uses.get(path, math.inf))

    def _time_of(self, tap: Tap) -> float:
        """The time after which values may depend on a tap; 0 for layers that did not run."""
        span = self.spans.get(tap.module)
        if span is None:
            return 0
        return span.end if tap.side == "output" and span.calls == 1 else span.begin


def trace(model: Model, example: Tensor) -> ForwardTrace:
    """Traces one forward.

    Args:
        model: The network; left as it was.
        example: ``(1, C, *spatial)`` of the size that one call sees.
    """
    tracer = _Tracer(model.network)
    with contextlib.ExitStack() as stack, torch.no_grad(), model.at_rest():
        for path, module in model.network.named_modules():
            tracer.follow(path, module, stack)
        with tracer:
            model(example)
    return ForwardTrace(tracer.spans(), tracer.first_uses(), tracer.by_last_use())


_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


class _Tracer(TorchFunctionMode):
    """Records when modules run, and which parameters are arguments of functions."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._paths = {module: path for path, module in network.named_modules()}
        self._owners: dict[int, list[nn.Module]] = {}
        for module in self._paths:
            for parameter in own_parameters(module):
                self._owners.setdefault(id(parameter), []).append(module)
        self._time = 0
        self._running: list[_ModuleCall] = []
        self._calls: list[_ModuleCall] = []
        self._first: dict[int, int] = {}
        self._last: dict[nn.Module, None] = {}

    def follow(self, path: str, module: nn.Module, stack: contextlib.ExitStack) -> None:
        """Records the calls of a module until the stack closes."""
        hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        hooked = any(not isinstance(hook, ThreadHook) for hook in hooks)

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._running.append(_ModuleCall(path, module, self._tick(), (args, kwargs), hooked))

        def after(_: nn.Module, __: object, ___: object, output: Any) -> None:
            call = self._running.pop()
            self._count_at_end(module)
            call.close(self._tick(), output)
            self._calls.append(call)

        add_hook(stack, module.register_forward_pre_hook, before, with_kwargs=True)
        add_hook(stack, module.register_forward_hook, after, with_kwargs=True)

    def spans(self) -> dict[str, ModuleSpan]:
        """By path, the modules that ran."""
        by_path: dict[str, list[_ModuleCall]] = {}
        for call in self._calls:
            by_path.setdefault(call.path, []).append(call)
        impure = [call.path for call in self._calls if call.has_side_effects]
        for call in self._calls:
            call.check_output()
        return {path: _span(path, calls, impure) for path, calls in by_path.items()}

    def first_uses(self) -> dict[str, int]:
        """By path, when a parameter of the module itself was first used."""
        uses = {
            path: [
                self._first[id(parameter)]
                for parameter in own_parameters(module)
                if id(parameter) in self._first
            ]
            for module, path in self._paths.items()
        }
        return {path: min(times) for path, times in uses.items() if times}

    def by_last_use(self) -> tuple[str, ...]:
        """Paths of the modules with parameters of their own, by their last use."""
        return tuple(self._paths[module] for module in self._last)

    def _tick(self) -> int:
        self._time += 1
        return self._time

    def _count_at_end(self, module: nn.Module) -> None:
        """Counts the end of a module as the use of parameters that no function was seen to use.

        The functions of a scripted module are not seen.
        """
        if own_parameters(module) and module not in self._last:
            self._last[module] = None
            for parameter in own_parameters(module):
                self._first.setdefault(id(parameter), self._time)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        keywords = kwargs or {}
        result = func(*args, **keywords)
        if _computes(func, result):
            for parameter in _parameters((*args, *keywords.values())):
                self._use(parameter)
        return result

    def _use(self, parameter: nn.Parameter) -> None:
        owners = self._owners.get(id(parameter), [])
        running = [call.module for call in reversed(self._running) if call.module in owners]
        self._first.setdefault(id(parameter), self._tick())
        for module in running[:1] or owners[:1]:
            self._last.pop(module, None)
            self._last[module] = None


class _ModuleCall:
    """One call of a module.

    Args:
        path: Of the module.
        module: The module.
        begin: Start of the call.
        arguments: Of the call.
        hooked: Whether the module has forward hooks of its own.

    Attributes:
        end: End of the call.
        has_side_effects: Whether the call may have effects beside its output.
        separate: Whether its output is tensors of its own that were never written to, and its
            arguments were not written to.
    """

    def __init__(
        self, path: str, module: nn.Module, begin: int, arguments: Any, hooked: bool
    ) -> None:
        self.path, self.module, self.begin, self.end = path, module, begin, begin
        self.has_side_effects = hooked or isinstance(module, torch.jit.ScriptModule)
        self.separate = False
        self._tensors = list(tensors_in(arguments))
        self._versions = [version(tensor) for tensor in self._tensors]
        self._attributes = attributes_of(module)

    def close(self, end: int, output: Any) -> None:
        """Ends the call and compares its arguments and its module with those at its start."""
        self.end = end
        arguments = {storage_key(tensor) for tensor in self._tensors}
        written = self._versions != [version(tensor) for tensor in self._tensors]
        aliased = any(storage_key(tensor) in arguments for tensor in tensors_in(output))
        self.separate = is_of_tensors(output) and not (written or aliased)
        self.has_side_effects |= self._attributes != attributes_of(self.module)
        self._tensors = list(tensors_in(output))
        self._versions = [version(tensor) for tensor in self._tensors]

    def check_output(self) -> None:
        """Checks at the end of the forward that the output was not written to."""
        self.separate &= self._versions == [version(tensor) for tensor in self._tensors]
        self._tensors = []


def _span(path: str, calls: Sequence[_ModuleCall], impure: Collection[str]) -> ModuleSpan:
    pure = not any(lies_in(other, path) for other in impure)
    return ModuleSpan(
        path=path,
        begin=calls[0].begin,
        end=calls[-1].end,
        calls=len(calls),
        repeatable=bool(path) and len(calls) == 1 and calls[0].separate and pure,
    )


def own_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Parameters of a module itself, without those of its children."""
    return list(module.parameters(recurse=False))


def attributes_of(module: nn.Module) -> dict[str, tuple[int, int]]:
    """Identity and length of the attributes that a module has beside those of every module."""
    values = {
        name: value
        for name, value in lasting_attributes(module).items()
        if name not in _OF_EVERY_MODULE
    }
    return {
        name: (id(value), len(value) if isinstance(value, (list, dict, set, tuple)) else 0)
        for name, value in (values | dict(module._buffers)).items()
    }


def is_of_tensors(output: Any) -> bool:
    """Whether an output is nothing but tensors, in tuples, lists and dicts."""
    if isinstance(output, (tuple, list)):
        return all(map(is_of_tensors, output))
    if isinstance(output, dict):
        return all(map(is_of_tensors, output.values()))
    return output is None or isinstance(output, Tensor)


def lies_in(path: str, outer: str) -> bool:
    """Whether a module is the outer one or lies in it."""
    return path == outer or path.startswith(f"{outer}.")


def _computes(func: Callable[..., Any], result: Any) -> bool:
    """Whether a function returns tensors; reading a shape, a type or ``data`` does not count."""
    if getattr(func, "__name__", "") == "__get__":
        return False
    return isinstance(result, Tensor) or (
        isinstance(result, (tuple, list)) and any(isinstance(item, Tensor) for item in result)
    )


def _parameters(values: Iterable[Any]) -> Iterator[nn.Parameter]:
    for value in values:
        if isinstance(value, nn.Parameter):
            yield value
        elif isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
            yield from _parameters(value)
