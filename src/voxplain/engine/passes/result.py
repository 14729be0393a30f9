"""What a batch of points brings back, and what a stream has to say afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from voxplain.engine.passes.conservation import Conservation
from voxplain.engine.taps import Tap

INPUT = Tap("", "input")
"""The place that is the input of the network itself."""


@dataclass(frozen=True, eq=False)
class PassResult:
    """What one batch of points brought back.

    Attributes:
        scores: S per point, ``(k,)`` float64.
        start_scores: S of the reference of each point, for paired rules.
        gradients: dS/dvalue per place, each ``(k, ...)``.
        values: Image or activation per place.
        start_values: The same for the references, for paired rules.
    """

    scores: Tensor
    start_scores: Tensor | None = None
    gradients: dict[Tap, Tensor] = field(default_factory=dict)
    values: dict[Tap, Tensor] = field(default_factory=dict)
    start_values: dict[Tap, Tensor] = field(default_factory=dict)

    def part(self, rows: slice) -> PassResult:
        """Some of the points."""

        def cut(tensors: dict[Tap, Tensor]) -> dict[Tap, Tensor]:
            return {place: tensor[rows] for place, tensor in tensors.items()}

        start = None if self.start_scores is None else self.start_scores[rows]
        tensors = (cut(part) for part in (self.gradients, self.values, self.start_values))
        return PassResult(self.scores[rows], start, *tensors)


@dataclass
class PassLog:
    """What a stream has to say afterwards: treated functions, remarks, passes spent."""

    treated: dict[str, int] = field(default_factory=dict)
    remarks: dict[str, None] = field(default_factory=dict)
    passes: int = 0
    forwards: int = 0
    conservation: Conservation = field(default_factory=Conservation)
