"""Networks that have forgotten part of what they learned, and what they still compute alike."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from voxplain.engine.acceleration.forward_trace import ForwardTrace
from voxplain.engine.acceleration.shared_prefix import SharedPrefix
from voxplain.engine.taps import Tap
from voxplain.metrics.context import MetricContext
from voxplain.metrics.randomization.reinitialize import recalibrate, reinitialize
from voxplain.metrics.randomization.stages import Order
from voxplain.models.copies import copied
from voxplain.models.model import Model

_TOLERANCE = 1e-5
"""Of outputs, relative to the largest one."""


@dataclass(frozen=True, eq=False)
class Randomized:
    """A network some of whose stages have forgotten what they learned.

    Attributes:
        model: A copy.
        changed: Paths of these stages.
    """

    model: Model
    changed: tuple[str, ...]


def in_order(groups: Sequence[tuple[str, ...]], order: Order) -> tuple[tuple[str, ...], ...]:
    """The steps as a cascade takes them; ``groups`` are in execution order."""
    return tuple(reversed(groups)) if order == "top_down" else tuple(groups)


def randomized(
    model: Model, groups: Sequence[tuple[str, ...]], order: Order, seed: int, images: Tensor
) -> Iterator[Randomized]:
    """One network per step; weights that two of them have in common lie in memory once.

    Args:
        model: The trained network; never touched.
        groups: The stages of each step, in execution order.
        order: Which of them are drawn first.
        seed: Of the new weights.
        images: ``(n, C, *spatial)``, on which running statistics are estimated anew.
    """
    trained = copied(model)
    last, drawn = trained, tuple[str, ...]()
    for group in in_order(groups, order):
        if order == "independent":
            last, drawn = trained, ()
        drawn += group
        last = copied(last, own=group)
        reinitialize(last.network, group, seed)
        recalibrate(last, images, drawn)
        yield Randomized(last, drawn)


def calibration_images(context: MetricContext) -> Tensor:
    """The image and some references, ``(n, C, *spatial)``, for :func:`randomized`."""
    shown: Tensor = context.base.example
    references = context.item.references
    if references is None or context.base.layout is not None:
        return shown
    return torch.cat([shown, references[:7]])


class Kinship:
    """What randomized networks compute alike: whatever runs before the first layer that differs.

    Tried out once, on the image and a few of the networks: if these do not give what they give
    alone, nothing is shared.

    Args:
        ran: The course of a forward.
        networks: Copies of one network.
        example: ``(1, C, *spatial)`` of the size that one call sees.
    """

    def __init__(self, ran: ForwardTrace, networks: Sequence[Randomized], example: Tensor) -> None:
        self._ran, self._networks, self._example = ran, networks, example

    def __call__(self, number: int, taps: tuple[Tap, ...]) -> Collection[str]:
        """Paths of modules that need not run in a network again."""
        return self._alike(number, taps) if self._holds else ()

    def _alike(self, number: int, taps: tuple[Tap, ...] = ()) -> Collection[str]:
        return self._ran.untouched(self._networks[number].changed, taps)

    @cached_property
    def _holds(self) -> bool:
        alike = {number: self._alike(number) for number in range(len(self._networks))}
        numbers = [number for number, paths in alike.items() if paths]
        tried = sorted({*numbers[:1], *numbers[len(numbers) // 2 :][:1], *numbers[-1:]})
        models = [self._networks[number].model for number in tried]
        prefix = SharedPrefix(
            [model.network for model in models], [alike[number] for number in tried]
        )
        shown = self._example.repeat(2, *[1] * (self._example.ndim - 1))  # alone it takes longer
        with torch.no_grad(), contextlib.ExitStack() as stack:
            for model in models:
                stack.enter_context(model.at_rest())
            alone = [model(shown) for model in models]
            with prefix.joined(), prefix.batch():
                return all(map(_agree, alone, (model(shown) for model in models)))


def _agree(first: Tensor, second: Tensor) -> bool:
    largest = float(first.abs().amax().nan_to_num())
    near = {"rtol": _TOLERANCE, "atol": _TOLERANCE * largest}
    return bool(torch.allclose(first, second, equal_nan=True, **near))
