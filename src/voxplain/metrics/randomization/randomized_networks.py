"""Copies of a network with randomized stages, and the modules whose outputs they share."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from voxplain.engine.acceleration.forward_trace import ForwardTrace
from voxplain.engine.acceleration.shared_prefix import SharedPrefix
from voxplain.engine.randomization.reinitialize import recalibrate, reinitialize
from voxplain.engine.randomization.stages import Order
from voxplain.engine.taps import Tap
from voxplain.metrics.context import MetricContext
from voxplain.metrics.maps import Undefined
from voxplain.models.copies import copied
from voxplain.models.model import Model

_TOLERANCE = 1e-5
"""Largest difference of outputs that count as equal, relative to the largest output."""


@dataclass(frozen=True, eq=False)
class RandomizedNetwork:
    """A copy of a network with some stages randomized.

    Attributes:
        model: The copy.
        changed: Paths of the randomized stages.
    """

    model: Model
    changed: tuple[str, ...]


def randomized(
    model: Model, groups: Sequence[tuple[str, ...]], order: Order, seed: int, images: Tensor
) -> Iterator[RandomizedNetwork]:
    """One network per step; weights that networks have in common are held in memory once.

    Args:
        model: The trained network, with plain weights (:func:`with_plain_weights`); left as it was.
        groups: The stages of each step, in execution order.
        order: Which stages are randomized first.
        seed: Of the new weights.
        images: ``(n, C, *spatial)``, on which running statistics are estimated again.

    Raises:
        Undefined: If the output is the same with all stages randomized, or with any of them where
            one is randomized at a time.
    """
    trained = copied(model)
    last, changed = trained, tuple[str, ...]()
    ordered = in_order(groups, order)
    checks = _OutputCheck(trained, images[:1])
    for step, group in enumerate(ordered, start=1):
        if order == "independent":
            last, changed = trained, ()
        changed += group
        last = copied(last, own=group)
        reinitialize(last.network, group, seed)
        recalibrate(last, images, changed)
        if order == "independent" or step == len(ordered):
            checks.look_at(last)
        if step == len(ordered):
            checks.require_change()
        yield RandomizedNetwork(last, changed)


def in_order(groups: Sequence[tuple[str, ...]], order: Order) -> tuple[tuple[str, ...], ...]:
    """The stages of each step in the order in which a cascade randomizes them.

    Args:
        groups: In execution order.
        order: Which stages are randomized first.
    """
    return tuple(reversed(groups)) if order == "top_down" else tuple(groups)


class _OutputCheck:
    """Whether randomized networks give another output than the trained one.

    Args:
        trained: The trained network.
        image: ``(1, C, *spatial)`` of the size that one call sees.
    """

    def __init__(self, trained: Model, image: Tensor) -> None:
        self._image, self._changed = image, False
        self._name, self._output = trained.name, self._output_of(trained)

    def look_at(self, model: Model) -> None:
        """Compares the output of a randomized network."""
        self._changed = self._changed or not torch.equal(self._output_of(model), self._output)

    def require_change(self) -> None:
        """Raises an Undefined if no output changed."""
        if not self._changed:
            raise Undefined(
                f"the output of {self._name} stays the same when its weights are randomized: the "
                "image does not reach them, or the forward takes its weights from elsewhere"
            )

    def _output_of(self, model: Model) -> Tensor:
        with torch.no_grad(), model.at_rest():
            return model(self._image)


def calibration_images(context: MetricContext) -> Tensor:
    """The image and at most seven references, ``(n, C, *spatial)``, for :func:`randomized`."""
    example: Tensor = context.engine.example
    references = context.input.references
    if references is None or context.engine.layout is not None:
        return example
    return torch.cat([example, references[:7]])


class UnchangedModules:
    """The modules that run before the first layer in which randomized networks differ.

    They give the same in all these networks and run once. This is tried out on the image and up to
    three of the networks: if their outputs change, nothing is shared.

    Args:
        traced: The trace of a forward of the network.
        networks: Randomized copies of the network.
        example: ``(1, C, *spatial)`` of the size that one call sees.
    """

    def __init__(
        self, traced: ForwardTrace, networks: Sequence[RandomizedNetwork], example: Tensor
    ) -> None:
        self._traced, self._networks, self._example = traced, networks, example

    def __call__(self, number: int, taps: tuple[Tap, ...]) -> Collection[str]:
        """Paths of the modules of a network that need not run again."""
        return self._unchanged(number, taps) if self._same_outputs else ()

    def _unchanged(self, number: int, taps: tuple[Tap, ...] = ()) -> Collection[str]:
        return self._traced.untouched(self._networks[number].changed, taps)

    @cached_property
    def _same_outputs(self) -> bool:
        """Whether networks that share modules give the outputs that they give alone."""
        unchanged = {number: self._unchanged(number) for number in range(len(self._networks))}
        numbers = [number for number, paths in unchanged.items() if paths]
        tried = sorted({*numbers[:1], *numbers[len(numbers) // 2 :][:1], *numbers[-1:]})
        models = [self._networks[number].model for number in tried]
        prefix = SharedPrefix(
            [model.network for model in models], [unchanged[number] for number in tried]
        )
        images = self._example.repeat(2, *[1] * (self._example.ndim - 1))  # one takes longer
        with torch.no_grad(), contextlib.ExitStack() as stack:
            for model in models:
                stack.enter_context(model.at_rest())
            alone = [model(images) for model in models]
            with prefix.installed(), prefix.batch():
                return all(map(_agree, alone, (model(images) for model in models)))


def _agree(first: Tensor, second: Tensor) -> bool:
    largest = float(first.abs().amax().nan_to_num())
    tolerances = {"rtol": _TOLERANCE, "atol": _TOLERANCE * largest}
    return bool(torch.allclose(first, second, equal_nan=True, **tolerances))
