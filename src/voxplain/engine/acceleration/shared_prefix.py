"""What several networks compute alike: run by the first of them, taken over by the others.

Networks that differ by some layers alone agree in all that runs before the first of these. For a
batch of points, the modules of this trunk run once; every other network is handed their outputs,
with the graph behind them, and goes on from there.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from voxplain.engine.taps import Tap
from voxplain.engine.tensors import tensors_in

SharedModules = Callable[[int, tuple[Tap, ...]], Collection[str]]
"""Paths of the modules that give the same in every network of which it is said, by the number of
the network, if values at some taps have to be its own. Nobody may write into what they give."""

_MOST_KEPT = 512 * 2**20
"""Bytes of outputs that are kept for one batch; what comes later runs in every network."""


class SharedPrefix:
    """Networks side by side, and what they share while a batch of points goes through them.

    Args:
        networks: Copies of one network.
        alike: Per network, paths of the modules that give the same in every network whose list has
            them.
    """

    def __init__(self, networks: Sequence[nn.Module], alike: Sequence[Collection[str]]) -> None:
        outermost = {path for paths in alike for path in _outermost(paths)}
        wanted = [outermost & set(paths) for paths in alike]
        counts = Counter(path for paths in wanted for path in paths)
        shared = [{path for path in paths if counts[path] > 1} for paths in wanted]
        self.prefix_users = tuple(
            PrefixUser(self, network, tuple(sorted(paths)))
            for network, paths in zip(networks, shared, strict=True)
        )
        self._kept: dict[tuple[int, str], Any] = {}
        self._leaves: dict[int, Tensor] = {}
        self._bytes, self.running = 0, False

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Inside, the networks can share; outside they are as they were."""
        with contextlib.ExitStack() as stack:
            for prefix_user in self.prefix_users:
                stack.enter_context(prefix_user.joined())
            yield

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Every network is given the same points inside, each in as many calls as the others."""
        for prefix_user in self.prefix_users:
            prefix_user.calls = 0
        self.running = True
        try:
            yield
        finally:
            self.running = False
            self._kept.clear()
            self._leaves.clear()
            self._bytes = 0

    def leaf(self, call: int, inputs: Tensor) -> Tensor:
        """The tensor that gradients are taken at in a call: one for all networks."""
        return self._leaves.setdefault(call, inputs.requires_grad_(True))

    def output(self, call: int, path: str, compute: Callable[[], Any]) -> Any:
        """What a module gives in a call."""
        key = (call, path)
        if key not in self._kept:
            output = compute()
            size = sum(part.numel() * part.element_size() for part in tensors_in(output))
            if self._bytes + size > _MOST_KEPT:
                return output
            self._bytes += size
            self._kept[key] = output
        return self._kept[key]


class PrefixUser:
    """One network of a trunk.

    Args:
        prefix: Of which it is a part.
        network: Modules inside are made to ask the trunk first.
        paths: Of these modules.

    Attributes:
        calls: Of the network, in the batch that is running.
    """

    def __init__(self, prefix: SharedPrefix, network: nn.Module, paths: tuple[str, ...]) -> None:
        self.prefix, self.network, self.paths = prefix, network, paths
        self.calls = 0

    def leaf(self, inputs: Tensor) -> Tensor:
        """The points of the call that follows, as the leaf that gradients are taken at."""
        if not self.prefix.running:
            return inputs.requires_grad_(True)
        return self.prefix.leaf(self.calls + 1, inputs)

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Inside, the modules ask the trunk for their outputs."""
        modules = [(path, self.network.get_submodule(path)) for path in self.paths]
        before = [module.__dict__.get("forward") for _, module in modules]
        counting = self.network.register_forward_pre_hook(self._count)
        try:
            for path, module in modules:
                module.forward = self._asking(path, module.forward)
            yield
        finally:
            counting.remove()
            for (_, module), forward in zip(modules, before, strict=True):
                del module.__dict__["forward"]
                if forward is not None:
                    module.forward = forward

    def _count(self, *_: object) -> None:
        self.calls += 1

    def _asking(self, path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def asking(*args: Any, **kwargs: Any) -> Any:
            if not self.prefix.running:
                return forward(*args, **kwargs)
            return self.prefix.output(self.calls, path, lambda: forward(*args, **kwargs))

        return asking


def _outermost(paths: Collection[str]) -> set[str]:
    """Those that lie inside no other one."""
    held = set(paths)
    return {path for path in held if not any(parent in held for parent in _parents(path))}


def _parents(path: str) -> Iterator[str]:
    while "." in path:
        path = path.rpartition(".")[0]
        yield path
