"""What an image is synthesized to drive, one number per image: the base of all objectives."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from voxplain.engine.taps import Tap
from voxplain.synthesis.reading import Reading


class Objective(BaseModel, ABC):
    """What is maximized: one number per image.

    Attributes:
        kind: Its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    kind: str

    @property
    def taps(self) -> tuple[Tap, ...]:
        """The layers that it is about."""
        return ()

    @property
    def compares(self) -> bool:
        """Whether it needs what the network makes of the image that was started from."""
        return False

    @abstractmethod
    def value(self, reading: Reading) -> Tensor:
        """The number of each image, ``(B,)``."""

    def map(self, reading: Reading) -> Tensor:
        """The number at every place, ``(B, *cells)``; ``(B,)`` for what has no places."""
        return self.value(reading)

    def peak(self, reading: Reading) -> Tensor:
        """The number at the place of each image where it is largest, ``(B,)``."""
        return self.map(reading).reshape(len(reading.output), -1).amax(dim=1)

    def typical(self, reading: Reading) -> Tensor:
        """A typical size of its values on some images, ``(B,)``; what penalties are relative to."""
        return torch.ones(len(reading.output), device=reading.output.device)

    @property
    @abstractmethod
    def slug(self) -> str:
        """A short name for keys and files."""


def typical_size(values: Tensor) -> Tensor:
    """Root mean square of the values of each image, ``(B,)``; 1 where all are 0."""
    size = values.detach().square().flatten(1).mean(dim=1).sqrt()
    return torch.where(size > 0, size, 1.0)
