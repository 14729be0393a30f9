"""One image in many rows, each with replacements of its own, in few forwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor

from voxplain.engine.acceleration.cached_prefix import CachedPrefix
from voxplain.engine.context import Context
from voxplain.engine.interventions import Replacement, memory_positions, resized
from voxplain.engine.memory import ForwardBudget, in_batches
from voxplain.engine.network_layers import NetworkLayers
from voxplain.engine.taps import Changes, Tap, Tapped, tapping
from voxplain.errors import ModelError
from voxplain.models.hooks import add_hook
from voxplain.models.layers import find_layer

Row = Sequence[Replacement]
"""What is replaced in one row; none for the image as it is."""
Seen = Callable[[range, Mapping[Tap, Tensor], Tensor | None], None]
"""Takes in the numbers of some rows, activations ``(rows, K, *cells)`` by tap, and the output
``(rows, K, ...)``, None where the network was not run to its end."""


class InterventionRows:
    """Forwards of one image under many interventions, several of them in one batch.

    Modules before the first layer that is replaced run once for all rows, and what comes after the
    last layer that is looked at does not run.

    Args:
        context: The network and one image, without windows.
        starts: The layers that rows replace units of.

    Raises:
        ModelError: If the network has windows, or a layer does not exist.
    """

    def __init__(self, context: Context, starts: Sequence[Tap]) -> None:
        if context.layout is not None:
            raise ModelError(
                "effects of units on units need the whole image in one call, and this network runs "
                "in windows; pass it without windows, with images of the size of one"
            )
        self._layers = context.layers
        self._layers.locate(tuple(starts))
        self._one_by_one = context.model.behavior.one_by_one
        with context.model.exact():
            self._prefix = CachedPrefix(context.model, context.inputs[:1], starts)
        self._model = context.model
        self._budget = ForwardBudget(context.model.device)

    def run(
        self, rows: Sequence[Row], taps: Sequence[Tap], seen: Seen, *, to_end: bool = True
    ) -> None:
        """Runs all rows and hands on what is seen in them, batch by batch.

        Args:
            rows: The replacements of each row.
            taps: Where to look.
            seen: Called for consecutive rows.
            to_end: Whether the output is wanted.
        """
        if self._one_by_one:
            for number, row in enumerate(rows):
                seen(range(number, number + 1), *self._batch([row], taps, to_end))
            return

        def run(batch: range) -> None:
            chosen = rows[batch.start : batch.stop]
            with self._budget.measured(len(batch)):
                found = self._batch(chosen, taps, to_end)
            seen(batch, *found)

        in_batches(len(rows), self._budget, run)

    def gradients(
        self, start: Tap, end: Tap | None, heads: Callable[[Tensor], Sequence[Tensor]]
    ) -> Iterator[Tensor]:
        """Gradients at a layer of numbers that are computed from a later layer or the output.

        Args:
            start: Where the gradients are, each ``(K, *cells)``.
            end: What the numbers are computed from, ``(1, K, *cells)``; None for the output.
            heads: The numbers.
        """
        leaves: list[Tensor] = []

        def leaf(value: Tensor) -> Tensor:
            leaves.append(value.detach().clone().requires_grad_(True))
            return leaves[-1]

        ends = () if end is None else (end,)
        with torch.enable_grad(), self._ready(), self._tapped(ends, {start: leaf}) as tapped:
            output = self._prefix(1)
            seen = output if end is None else self._layers.arranged(end, tapped[end])
            numbers = heads(seen)
            for count, number in enumerate(numbers, start=1):
                yield self._gradient(start, leaves[-1], number, count < len(numbers))

    def _gradient(self, start: Tap, leaf: Tensor, number: Tensor, again: bool) -> Tensor:
        if not number.requires_grad:
            return torch.zeros_like(self._layers.arranged(start, leaf.detach())[0])
        found = torch.autograd.grad(number, leaf, retain_graph=again, allow_unused=True)[0]
        gradient = torch.zeros_like(leaf) if found is None else found
        return self._layers.arranged(start, gradient)[0]

    def _batch(
        self, rows: Sequence[Row], taps: Sequence[Tap], to_end: bool
    ) -> tuple[dict[Tap, Tensor], Tensor | None]:
        places = dict.fromkeys(each.tap for row in rows for each in row)
        changes = {tap: partial(_changed, self._layers, tap, rows) for tap in places}
        output = None
        with torch.no_grad(), self._ready(), self._tapped(taps, changes) as tapped:
            if to_end:
                output = self._prefix(len(rows))
            else:
                self._until(taps, len(rows))
        return {tap: self._layers.arranged(tap, tapped[tap]) for tap in taps}, output

    def _until(self, taps: Sequence[Tap], rows: int) -> None:
        """Runs the network until all taps were seen, if each layer is called once."""
        waiting = {*taps}
        with contextlib.ExitStack() as stack, contextlib.suppress(_ReachedError):
            if all(map(self._prefix.runs_once, taps)):
                for tap in taps:
                    layer = find_layer(self._prefix.model.network, tap.module)
                    before = tap.side == "input"
                    register = (
                        layer.register_forward_pre_hook if before else layer.register_forward_hook
                    )
                    add_hook(stack, register, partial(_reached, waiting, tap))
            self._prefix(rows)

    @contextlib.contextmanager
    def _ready(self) -> Iterator[None]:
        with self._prefix.model.at_rest(), self._model.exact():
            yield

    def _tapped(self, taps: Sequence[Tap], changes: Changes) -> AbstractContextManager[Tapped]:
        places = tuple(dict.fromkeys((*taps, *changes)))
        return tapping(self._prefix.model.network, places, changes)


class _ReachedError(BaseException):
    """Ends a forward when all is seen; no error of the network, which are put into words."""


def _reached(waiting: set[Tap], tap: Tap, *_: object) -> None:
    waiting.discard(tap)
    if not waiting:
        raise _ReachedError


def _changed(layers: NetworkLayers, tap: Tap, rows: Sequence[Row], value: Tensor) -> Tensor:
    """The value of a layer with the replacements of every row."""
    arranged = layers.arranged(tap, value)
    mixed = torch.stack([_mixed(own, tap, row) for own, row in zip(arranged, rows, strict=True)])
    if arranged.shape == value.shape and arranged.data_ptr() == value.data_ptr():
        return mixed
    other = value.clone(memory_format=torch.contiguous_format)
    positions = layers.arranged(tap, memory_positions(other.shape)).to(other.device)
    other.view(-1)[positions.flatten()] = mixed.flatten()
    return other


def _mixed(own: Tensor, tap: Tap, row: Row) -> Tensor:
    for each in row:
        if each.tap == tap:
            own = each.mixed(own, resized(each.values.to(own), own.shape[1:]))
    return own
