"""A map as metrics see it: one number per voxel on the grid of the network, and its ranking."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from voxplain.engine.randomness import generator
from voxplain.errors import VoxplainError

Sign = Literal["signed", "absolute", "positive"]


class Undefined(VoxplainError):  # noqa: N818 - a state of a score, not a failure
    """A score that does not exist for a map, and why."""


@dataclass(frozen=True, eq=False)
class MapField:
    """A map on the grid that the network sees.

    Attributes:
        name: Of the method or control.
        map: ``(C or 1, *spatial)``.
        sign: What its sign means; declared by the method, never guessed.
        share: Whether the map shares out the score (``x dS/dx``, differences), or is a slope
            (score per unit of intensity).
        key: What the order of equal values is drawn from.
        completeness: |what it shares out - (S(x) - S(b))| / |S(x) - S(b)|, where the method has
            that axiom.
        start: Image ``(C, *spatial)`` from which a shared-out change of the score is counted; 0 if
            None.
    """

    name: str
    map: Tensor
    sign: Sign = "signed"
    share: bool = True
    key: str = ""
    completeness: float | None = None
    start: Tensor | None = None

    @cached_property
    def values(self) -> Tensor:
        """One number per voxel, channels summed, ``(*spatial)`` float64."""
        return self.map.detach().double().sum(dim=0)

    @cached_property
    def positive(self) -> Tensor:
        """What speaks for the target, ``(*spatial)``."""
        return self.values.clamp(min=0)

    @cached_property
    def order(self) -> Tensor:
        """Flat voxel numbers, the most relevant first; equal values in a random order.

        Raises:
            Undefined: If all values are equal, or some are not finite.
        """
        flat = self.checked.flatten()
        draws = torch.randperm(len(flat), generator=generator(self.key, self.name, "ties"))
        shuffled = draws.to(flat.device)
        return shuffled[flat[shuffled].argsort(descending=True, stable=True)]

    @property
    def checked(self) -> Tensor:
        """The values, where they say anything.

        Raises:
            Undefined: If they do not.
        """
        if not bool(torch.isfinite(self.values).all()):
            raise Undefined("the map holds NaN or infinite values")
        if bool(self.values.amax() == self.values.amin()):
            raise Undefined("the map is constant")
        return self.values
