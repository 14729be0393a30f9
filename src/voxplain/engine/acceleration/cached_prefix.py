"""Cached prefix: one image many times over, computed from the first layer in which rows differ."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.acceleration.forward_trace import ForwardTrace, trace
from voxplain.engine.taps import Tap
from voxplain.engine.tensors import map_tensors, tensors_in
from voxplain.models.copies import copied
from voxplain.models.model import Model


class CachedPrefix:
    """A network whose modules before some layers give what they gave for one image.

    Functions between these modules are computed for every row. A network that draws random numbers
    runs whole, as its draws depend on what ran before.

    Args:
        model: Left as it was: modules are cached in a copy that shares its parameters.
        image: ``(1, C, *spatial)``.
        starts: The layers whose values may differ from row to row.

    Attributes:
        model: To be tapped and called through :meth:`__call__`.
        cached: Paths of the modules that do not run again.
    """

    def __init__(self, model: Model, image: Tensor, starts: Sequence[Tap]) -> None:
        self._image, self._rows = image, 1
        self._outputs: dict[str, Any] = {}
        self._trace = trace(model, image)
        found = () if model.behavior.is_random else _before(self._trace, starts)
        self.cached = _outermost(found)
        self.model = copied(model, own=()) if self.cached else model
        for path in self.cached:
            module = self.model.network.get_submodule(path)
            module.forward = self._remembered(path, module.forward)
        with torch.no_grad(), self.model.at_rest():  # a copy has modes of its own
            self(1)
        for path in {*self.cached} - {*filter(self._has_one_row, self.cached)}:
            del self.model.network.get_submodule(path).__dict__["forward"]

    def __call__(self, rows: int) -> Tensor:
        """The explained output for so many rows, ``(rows, K, ...)``."""
        self._rows = rows
        return self.model(self._image.expand(rows, *self._image.shape[1:]))

    def runs_once(self, tap: Tap) -> bool:
        """Whether a layer is called once in a forward."""
        span = self._trace.spans.get(tap.module)
        return span is not None and span.calls == 1

    def _remembered(self, path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def remembered(*args: Any, **kwargs: Any) -> Any:
            if path not in self._outputs:
                self._outputs[path] = forward(*args, **kwargs)
            return _repeated(self._outputs[path], self._rows)

        return remembered

    def _has_one_row(self, path: str) -> bool:
        """Whether the output for one image begins with an axis of length one, the batch."""
        tensors = tensors_in(self._outputs.get(path))
        return all(tensor.ndim > 0 and len(tensor) == 1 for tensor in tensors)


def _before(found: ForwardTrace, starts: Sequence[Tap]) -> frozenset[str]:
    """Modules that end before any of the layers, and the first of these itself."""
    before = found.untouched((), starts)
    firsts = {tap.module for tap in starts if tap.side == "output" and "#" not in tap.path}
    ends = {path: found.spans[path].end for path in firsts if path in found.spans}
    if len(ends) < len(starts) or not ends:
        return before
    first = min(ends, key=ends.__getitem__)
    return before | {first} if found.spans[first].repeatable else before


def _outermost(paths: Collection[str]) -> tuple[str, ...]:
    """The paths that lie inside no other one."""
    inner = (path for path in paths if not any(path.startswith(f"{other}.") for other in paths))
    return tuple(sorted(inner))


def _repeated(value: Any, rows: int) -> Any:
    """A nest of tensors of one row with that row so many times."""
    if rows == 1:
        return value
    return map_tensors(value, lambda tensor: tensor.expand(rows, *tensor.shape[1:]))
