"""Shared prefix: modules with equal outputs in several networks run once for all of them.

Copies of a network that differ in some layers only agree in all modules that run before the first
of these. For each batch of points such modules run in one network; the others reuse their outputs,
with the autograd graph, and go on from there.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from voxplain.engine.taps import Tap
from voxplain.engine.tensors import tensors_in
from voxplain.models.hooks import add_hook, replace_forward

SharedModules = Callable[[int, tuple[Tap, ...]], Collection[str]]
"""By the number of a network and its taps, paths of the modules whose outputs are the same in every
network that lists them. No network may write into these outputs in place."""

_MAX_BYTES = 512 * 2**20
"""Bytes of outputs that are stored for one batch; later modules run in every network."""


class SharedPrefix:
    """Several networks, and the module outputs that they share for one batch of points.

    Args:
        networks: Copies of one network.
        shared_modules: Per network, paths of the modules whose outputs are the same in every
            network that lists them.
    """

    def __init__(
        self, networks: Sequence[nn.Module], shared_modules: Sequence[Collection[str]]
    ) -> None:
        outermost = {path for paths in shared_modules for path in _outermost(paths)}
        candidates = [outermost & set(paths) for paths in shared_modules]
        counts = Counter(path for paths in candidates for path in paths)
        shared = [{path for path in paths if counts[path] > 1} for paths in candidates]
        self.prefix_users = tuple(
            PrefixUser(self, network, tuple(sorted(paths)))
            for network, paths in zip(networks, shared, strict=True)
        )
        self._outputs: dict[tuple[int, str], Any] = {}
        self._leaves: dict[int, Tensor] = {}
        self._bytes, self.running = 0, False

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Modules inside the block can share outputs; afterwards the networks are as before."""
        with contextlib.ExitStack() as stack:
            for prefix_user in self.prefix_users:
                stack.enter_context(prefix_user.installed())
            yield

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Shares outputs inside the block, where every network gets the same points and calls."""
        for prefix_user in self.prefix_users:
            prefix_user.calls = 0
        self.running = True
        try:
            yield
        finally:
            self.running = False
            self._outputs.clear()
            self._leaves.clear()
            self._bytes = 0

    def leaf(self, call: int, inputs: Tensor) -> Tensor:
        """The leaf of a call for which gradients are computed: the same for all networks."""
        return self._leaves.setdefault(call, inputs.requires_grad_(True))

    def output(self, call: int, path: str, compute: Callable[[], Any]) -> Any:
        """The output of a module in a call, computed by the first network that needs it."""
        key = (call, path)
        if key not in self._outputs:
            output = compute()
            size = sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(output))
            if self._bytes + size > _MAX_BYTES:
                return output
            self._bytes += size
            self._outputs[key] = output
        return self._outputs[key]


class PrefixUser:
    """One of the networks that share a prefix.

    Args:
        prefix: The shared outputs.
        network: Its shared modules look up their outputs before they compute them.
        paths: Of the shared modules.

    Attributes:
        calls: Calls of the network in the current batch.
    """

    def __init__(self, prefix: SharedPrefix, network: nn.Module, paths: tuple[str, ...]) -> None:
        self.prefix, self.network, self.paths = prefix, network, paths
        self.calls = 0

    def leaf(self, inputs: Tensor) -> Tensor:
        """The points of the next call, as the leaf for which gradients are computed."""
        if not self.prefix.running:
            return inputs.requires_grad_(True)
        return self.prefix.leaf(self.calls + 1, inputs)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Shared modules look up their outputs inside the block; afterwards they are as before."""
        with contextlib.ExitStack() as stack:
            add_hook(stack, self.network.register_forward_pre_hook, self._count)
            for path in self.paths:
                sharing = partial(self._sharing, path)
                replace_forward(stack, self.network.get_submodule(path), sharing)
            yield

    def _count(self, *_: object) -> None:
        self.calls += 1

    def _sharing(self, path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def sharing(*args: Any, **kwargs: Any) -> Any:
            if not self.prefix.running:
                return forward(*args, **kwargs)
            return self.prefix.output(self.calls, path, lambda: forward(*args, **kwargs))

        return sharing


def _outermost(paths: Collection[str]) -> set[str]:
    """The paths that lie inside no other one."""
    given = set(paths)
    return {path for path in given if not any(parent in given for parent in _parents(path))}


def _parents(path: str) -> Iterator[str]:
    while "." in path:
        path = path.rpartition(".")[0]
        yield path
