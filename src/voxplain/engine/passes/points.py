"""What goes into one batch of passes, what comes out, and the log of a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from voxplain.engine.taps import InterpolatedActivation, Tap
from voxplain.models.precision import Precision


@dataclass(frozen=True, eq=False)
class Points:
    """Points that go through the network together.

    Attributes:
        inputs: ``(k, C, *spatial)``.
        rows: Index of the image of each point in the batch.
        start: References of the points ``(k, C, *spatial)``, for paired rules.
        interpolated: A layer whose activation is interpolated while the network sees the image.
    """

    inputs: Tensor
    rows: list[int]
    start: Tensor | None = None
    interpolated: InterpolatedActivation | None = None

    def repeated(self) -> Points:
        """Every point twice."""
        start = None if self.start is None else torch.cat([self.start, self.start])
        interpolated = self.interpolated.repeated() if self.interpolated else None
        inputs = torch.cat([self.inputs, self.inputs])
        return Points(inputs, self.rows * 2, start, interpolated)

    def apart(self) -> Iterator[Points]:
        """Each point alone."""
        for index, row in enumerate(self.rows):
            one = slice(index, index + 1)
            start = None if self.start is None else self.start[one]
            interpolated = self.interpolated.point(index) if self.interpolated else None
            yield Points(self.inputs[one], [row], start, interpolated)


@dataclass(frozen=True, eq=False)
class PassResult:
    """Scores, gradients and values of one batch of points.

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
        tensors = (cut(values) for values in (self.gradients, self.values, self.start_values))
        return PassResult(self.scores[rows], start, *tensors)

    @classmethod
    def joined(cls, parts: Sequence[PassResult]) -> PassResult:
        """The results of points that ran apart, as one batch."""

        def together(tensors: Sequence[dict[Tap, Tensor]]) -> dict[Tap, Tensor]:
            return {tap: torch.cat([part[tap] for part in tensors]) for tap in tensors[0]}

        starts = [part.start_scores for part in parts if part.start_scores is not None]
        return cls(
            scores=torch.cat([part.scores for part in parts]),
            start_scores=torch.cat(starts) if starts else None,
            gradients=together([part.gradients for part in parts]),
            values=together([part.values for part in parts]),
            start_values=together([part.start_values for part in parts]),
        )


@dataclass
class PassLog:
    """How the passes of a stream went.

    Attributes:
        precision: In which they ran.
        agreement: Of the low precision that was asked for with float32; None where none was tried.
        offloaded: Whether what autograd saved was kept in the memory of the CPU.
        recomputed: Whether parts of the network ran again in the backward pass.
        treated: Calls that got a rule, by function.
        remarks: Sentences for the reader of the map, each once.
        passes: Points that went forward and backward.
        forwards: Inputs that went forward only.
        spent: Passes per image, as a map states them.
        seconds: Time.
        conservation: Where relevance went, for rules that conserve it.
    """

    precision: Precision = "float32"
    agreement: float | None = None
    offloaded: bool = False
    recomputed: bool = False
    treated: dict[str, int] = field(default_factory=dict)
    remarks: dict[str, None] = field(default_factory=dict)
    passes: int = 0
    forwards: int = 0
    spent: int = 0
    seconds: float = 0.0
    conservation: dict[str, float] = field(default_factory=dict)
