"""What targets for each part of a prediction have in common: which parts, and how many."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from voxplain.errors import TargetError
from voxplain.records.candidates import Candidates
from voxplain.targets import Target, UnperturbedOutput
from voxplain.targets.field import Activation

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(voxels|pixels|mm2|mm3|cm2|mL)\s*")
_AXES = {"mm2": 2, "cm2": 2, "mm3": 3, "mL": 3}
_IN_MM = {"mm2": 1.0, "cm2": 100.0, "mm3": 1.0, "mL": 1000.0}


def _checked_size(size: int | str) -> int | str:
    if isinstance(size, str) and not _SIZE.fullmatch(size):
        raise ValueError(
            f"{size!r} is not a size; write 20 (voxels of the output), 50mm3 or 0.5mL, and for "
            "2-D images 50mm2 or 0.5cm2"
        )
    if isinstance(size, int) and size < 1:
        raise ValueError(f"{size} is not a size; write 1 or more voxels of the output")
    return size


class ForEach(BaseModel, ABC):
    """A target for each part of a prediction; how many these are is known for a case alone.

    Attributes:
        min_size: The smallest that is explained: a number of voxels of the output, or ``50mm3``,
            ``0.5mL`` (``50mm2``, ``0.5cm2`` in 2-D).
        max_count: How many of a case are explained at most, the largest ones.
        activation: Of each target.
        threshold: Of each target.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: ClassVar[tuple[str, ...]] = ()

    for_each: str
    kind: str
    activation: Activation = "auto"
    threshold: float = Field(default=0.5, gt=0, lt=1)
    min_size: Annotated[int | str, AfterValidator(_checked_size)] | None = None
    max_count: int | None = Field(default=None, ge=1)

    @abstractmethod
    def candidates(self, unperturbed: UnperturbedOutput) -> Candidates:
        """What an output for one image holds, whatever its size and number.

        Raises:
            TargetError: If it can hold nothing of this kind.
        """

    @abstractmethod
    def target(self, number: int) -> Target:
        """The target for one of them."""

    @property
    @abstractmethod
    def in_words(self) -> str:
        """What they are, such as ``predicted components of class 1``."""

    @property
    def question(self) -> dict[str, Any]:
        """What determines the candidates, besides network and image."""
        return self.model_dump(mode="json", exclude={"min_size", "max_count"})

    @property
    def slug(self) -> str:
        """A name of its own among the targets of a study."""
        stated = self.model_dump(mode="json", exclude={"for_each", "kind"}, exclude_defaults=True)
        return "each-" + "-".join(map(str, (self.for_each, self.kind, *stated.values())))

    def __str__(self) -> str:
        limits = self.model_dump(mode="json", include={"min_size", "max_count"})
        limits = {name: value for name, value in limits.items() if value is not None}
        rest = "".join(f", {name}={value}" for name, value in limits.items())
        return f"for_each({self.in_words}{rest})"

    def chosen(self, candidates: Candidates) -> list[int]:
        """The numbers of those that are explained.

        Raises:
            TargetError: If the unit of ``min_size`` does not fit the output.
        """
        return self._ordered(self._large(candidates)[: self.max_count])

    def left_out(self, candidates: Candidates) -> str:
        """Which are not explained, in words; empty if all are."""
        large = self._large(candidates)
        small = len(candidates.sizes) - len(large)
        parts = []
        if small and self.min_size is not None:
            parts.append(f"{small} smaller than {_size_in_words(self.min_size, candidates.axes)}")
        if self.max_count is not None and len(large) > self.max_count:
            most = "largest" if self.max_count == 1 else f"{self.max_count} largest"
            parts.append(f"{len(large) - self.max_count} beyond the {most}")
        parts += [f"number {number} ({why})" for number, why in candidates.refused.items()]
        return ", ".join(parts)

    def _large(self, candidates: Candidates) -> list[int]:
        """The numbers of those that are large enough, the largest first."""
        if self.min_size is None:
            return [*candidates.sizes]
        if candidates.axes == 0:
            raise TargetError("min_size is for networks with a dense output")
        each, least = self._in_one_unit(self.min_size, candidates)
        rounding = 1 - 1e-9
        return [
            number for number, size in candidates.sizes.items() if size * each >= least * rounding
        ]

    def _in_one_unit(self, size: int | str, candidates: Candidates) -> tuple[float, float]:
        """A position of the output, and a size, in the unit of the size."""
        match = _SIZE.fullmatch(str(size))
        if match is None:
            return 1.0, float(size)
        number, unit = float(match[1]), match[2]
        if unit not in _AXES:
            return 1.0, number
        if _AXES[unit] != candidates.axes:
            fitting = "mm3 or voxels" if candidates.axes == 3 else "mm2 or pixels"
            raise TargetError(
                f"min_size {size} does not fit an output of {candidates.axes} axes; write {fitting}"
            )
        if candidates.volume is None:
            raise TargetError(
                f"min_size {size}: the size of a voxel in mm is not known; write a number of voxels"
            )
        return candidates.volume, number * _IN_MM[unit]

    def _ordered(self, numbers: list[int]) -> list[int]:
        return numbers


def _size_in_words(size: int | str, axes: int) -> str:
    return size if isinstance(size, str) else f"{size} {'pixels' if axes == 2 else 'voxels'}"
