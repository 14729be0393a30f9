"""Several changes of an image one after the other, and how they are undone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from voxplain.engine.variants.perturbations import INSIDE, Perturbation, on_weights
from voxplain.targets import UnperturbedOutput, WeightField


@dataclass(frozen=True)
class Flip(Perturbation):
    """The image mirrored along some of its axes.

    Attributes:
        axes: Numbers of the spatial axes.
    """

    axes: tuple[int, ...] = ()

    def changed(self, image: Tensor, key: str, draw: int) -> Tensor:
        return self.returned(image, draw)

    def returned(self, values: Tensor, draw: int) -> Tensor:
        return values.flip([axis + 1 for axis in self.axes]) if self.axes else values

    def moved(
        self, draw: int, seen: UnperturbedOutput | None = None
    ) -> Callable[[WeightField], WeightField]:
        return on_weights(lambda weights: self.returned(weights, draw), seen)


@dataclass(frozen=True)
class Chain(Perturbation):
    """Several changes one after the other, each with the number of its own draw.

    Attributes:
        links: Changes and their numbers.
    """

    links: tuple[tuple[Perturbation, int], ...] = ()

    def changed(self, image: Tensor, key: str, draw: int) -> Tensor:
        for link, number in self.links:
            image = link.changed(image, key, number)
        return image

    def returned(self, values: Tensor, draw: int) -> Tensor:
        for link, number in reversed(self.links):
            values = link.returned(values, number)
        return values

    def in_view(self, values: Tensor, draw: int) -> Tensor:
        """What every one of the changes shows."""
        shown = super().in_view(values, draw)
        for link, number in reversed(self.links):
            back = link.returned(shown[None].double(), number)[0] > INSIDE
            shown = back & link.in_view(shown[None], number)
        return shown
