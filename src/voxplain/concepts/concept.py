"""A concept: what a part of an image shows, or the whole of it, and where this is known from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from voxplain.engine.cohort import CohortCase

Kind = Literal["mask", "image"]
Status = Literal["explicit", "derived", "implicit"]
"""Of a ground truth; computed from one; or without any."""


@dataclass(frozen=True)
class Concept:
    """Something that units of a network may detect.

    Attributes:
        name: As people call it.
        kind: Whether it is a part of an image or holds for the whole of it.
        status: Whether a ground truth exists.
        provenance: Where it comes from, in words.
        compute: Its mask ``(*spatial)`` of bool on the grid of the image of a case; for the whole
            image a bool tensor without axes. None where it is not known for the case.
        group: Concepts of one group come from the same source, such as one label map.
    """

    name: str
    kind: Kind
    status: Status
    provenance: str
    compute: Callable[[CohortCase], Tensor | None]
    group: str = ""

    def of(self, case: CohortCase) -> Tensor | None:
        """Its mask, or whether it holds, for one case; None where this is not known."""
        return self.compute(case)
