"""The course of a forward: when modules began and ended, and when parameters were used."""

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
from voxplain.models.hooks import ThreadHook, add_hook
from voxplain.models.model import Model


@dataclass(frozen=True)
class ModuleSpan:
    """One module, as it ran.

    Attributes:
        path: Of the module.
        begin: When its first call began, counted in events.
        end: When its last call ended.
        calls: How often it was called.
        repeatable: Whether what it gives can stand for running it: it was called once, gave
            tensors of its own, into which nobody wrote, and left nothing else behind.
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
        runs: By path, the modules that ran.
        first: By path, when a parameter of the module itself was first used.
        last: Paths of the modules with parameters of their own, by when one was last used.
    """

    runs: Mapping[str, ModuleSpan]
    first: Mapping[str, int]
    last: tuple[str, ...]

    def untouched(self, changed: Collection[str], taps: Collection[Tap] = ()) -> frozenset[str]:
        """The modules whose outputs do not depend on what some modules do.

        Args:
            changed: Paths of modules whose own parameters are others.
            taps: Where values are changed or have to be those of each network.
        """
        limits = [self._begin(path) for path in changed]
        limits += [self._reached(tap) for tap in taps]
        limit = min(limits, default=math.inf)
        return frozenset(
            run.path for run in self.runs.values() if run.repeatable and run.end < limit
        )

    def _begin(self, path: str) -> float:
        run = self.runs.get(path)
        begin = run.begin if run else math.inf
        return min(begin, self.first.get(path, math.inf))

    def _reached(self, tap: Tap) -> float:
        """Before anything that depends on the value at a tap; the beginning for unknown layers."""
        run = self.runs.get(tap.module)
        if run is None:
            return 0
        return run.end if tap.side == "output" and run.calls == 1 else run.begin


def trace(model: Model, example: Tensor) -> ForwardTrace:
    """Watches one forward.

    Args:
        model: The network; left as it was.
        example: ``(1, C, *spatial)`` of the size that one call sees.
    """
    watch = _CallWatcher(model.network)
    with contextlib.ExitStack() as stack, torch.no_grad(), model.at_rest():
        for path, module in model.network.named_modules():
            watch.follow(path, module, stack)
        with watch:
            model(example)
    return ForwardTrace(watch.runs(), watch.first(), watch.last())


_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


class _CallWatcher(TorchFunctionMode):
    """Notes when modules run, and which modules' parameters functions are given."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._paths = {module: path for path, module in network.named_modules()}
        self._owners: dict[int, list[nn.Module]] = {}
        for module in self._paths:
            for part in own(module):
                self._owners.setdefault(id(part), []).append(module)
        self._time = 0
        self._running: list[_Visit] = []
        self._visits: list[_Visit] = []
        self._first: dict[int, int] = {}
        self._last: dict[nn.Module, None] = {}

    def follow(self, path: str, module: nn.Module, stack: contextlib.ExitStack) -> None:
        """Watches a module until the stack closes."""
        hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        hooked = any(not isinstance(hook, ThreadHook) for hook in hooks)

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._running.append(_Visit(path, module, self._tick(), (args, kwargs), hooked))

        def leave(_: nn.Module, __: object, ___: object, output: Any) -> None:
            visit = self._running.pop()
            self._unwatched(module)
            visit.close(self._tick(), output)
            self._visits.append(visit)

        add_hook(stack, module.register_forward_pre_hook, enter, with_kwargs=True)
        add_hook(stack, module.register_forward_hook, leave, with_kwargs=True)

    def runs(self) -> dict[str, ModuleSpan]:
        """By path, the modules that ran."""
        calls: dict[str, list[_Visit]] = {}
        for visit in self._visits:
            calls.setdefault(visit.path, []).append(visit)
        marked = [visit.path for visit in self._visits if visit.leaves_traces]
        for visit in self._visits:
            visit.look_back()
        return {path: _run(path, visits, marked) for path, visits in calls.items()}

    def first(self) -> dict[str, int]:
        """By path, when a parameter of the module itself was first used."""
        found = {
            path: [self._first[id(part)] for part in own(module) if id(part) in self._first]
            for module, path in self._paths.items()
        }
        return {path: min(times) for path, times in found.items() if times}

    def last(self) -> tuple[str, ...]:
        """Paths of the modules with parameters of their own, by their last use."""
        return tuple(self._paths[module] for module in self._last)

    def _tick(self) -> int:
        self._time += 1
        return self._time

    def _unwatched(self, module: nn.Module) -> None:
        """A module whose functions cannot be watched (a scripted one) counts where it ends."""
        if own(module) and module not in self._last:
            self._last[module] = None
            for part in own(module):
                self._first.setdefault(id(part), self._time)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        if _computes(func, result):
            for part in _parameters((*args, *given.values())):
                self._use(part)
        return result

    def _use(self, part: nn.Parameter) -> None:
        owners = self._owners.get(id(part), [])
        running = [visit.module for visit in reversed(self._running) if visit.module in owners]
        self._first.setdefault(id(part), self._tick())
        for module in running[:1] or owners[:1]:
            self._last.pop(module, None)
            self._last[module] = None


class _Visit:
    """One call of a module.

    Args:
        path: Of the module.
        module: The module.
        begin: When the call began.
        given: Its arguments.
        hooked: Whether somebody else listens to it.

    Attributes:
        end: When the call ended.
        leaves_traces: Whether something remains of it beside its output and its arguments.
        apart: Whether its output is tensors of its own, into which nobody wrote, and its
            arguments are as they were.
    """

    def __init__(self, path: str, module: nn.Module, begin: int, given: Any, hooked: bool) -> None:
        self.path, self.module, self.begin, self.end = path, module, begin, begin
        self.leaves_traces = hooked or isinstance(module, torch.jit.ScriptModule)
        self.apart = False
        self._given = list(tensors_in(given))
        self._versions = [version(part) for part in self._given]
        self._attributes = _attributes(module)

    def close(self, end: int, output: Any) -> None:
        """The call ends; looks at what it did to its arguments and to its module."""
        self.end = end
        given = {storage_key(part) for part in self._given}
        written = self._versions != [version(part) for part in self._given]
        aliased = any(storage_key(part) in given for part in tensors_in(output))
        self.apart = _is_of_tensors(output) and not (written or aliased)
        self.leaves_traces |= self._attributes != _attributes(self.module)
        self._given = list(tensors_in(output))
        self._versions = [version(part) for part in self._given]

    def look_back(self) -> None:
        """At the end of the forward: has the output stayed what it was?"""
        self.apart &= self._versions == [version(part) for part in self._given]
        self._given = []


def _run(path: str, visits: Sequence[_Visit], marked: Collection[str]) -> ModuleSpan:
    silent = not any(_inside(other, path) for other in marked)
    return ModuleSpan(
        path=path,
        begin=visits[0].begin,
        end=visits[-1].end,
        calls=len(visits),
        repeatable=bool(path) and len(visits) == 1 and visits[0].apart and silent,
    )


def own(module: nn.Module) -> list[nn.Parameter]:
    """Parameters of a module itself, without those of the modules inside."""
    return list(module.parameters(recurse=False))


def _attributes(module: nn.Module) -> dict[str, tuple[int, int]]:
    """What lies on a module beside what every module has: which object, and how long it is."""
    held = {name: part for name, part in vars(module).items() if name not in _OF_EVERY_MODULE}
    return {
        name: (id(part), len(part) if isinstance(part, (list, dict, set, tuple)) else 0)
        for name, part in (held | dict(module._buffers)).items()
    }


def _is_of_tensors(output: Any) -> bool:
    if isinstance(output, (tuple, list)):
        return all(map(_is_of_tensors, output))
    if isinstance(output, dict):
        return all(map(_is_of_tensors, output.values()))
    return output is None or isinstance(output, Tensor)


def _inside(path: str, outer: str) -> bool:
    """Whether a module is another one or lies in it."""
    return path == outer or path.startswith(f"{outer}.")


def _computes(func: Callable[..., Any], result: Any) -> bool:
    """Whether numbers come out: asking a weight for its shape, type or data is no use of it."""
    if getattr(func, "__name__", "") == "__get__":
        return False
    return isinstance(result, Tensor) or (
        isinstance(result, (tuple, list)) and any(isinstance(part, Tensor) for part in result)
    )


def _parameters(values: Iterable[Any]) -> Iterator[nn.Parameter]:
    for value in values:
        if isinstance(value, nn.Parameter):
            yield value
        elif isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
            yield from _parameters(value)
