"""Records of the relevance of units: in which cases the score draws on which units."""

from __future__ import annotations

from typing import Literal

from voxplain.records.record import Record

RelevanceRule = Literal["lrp", "activation x gradient"]


class RelevantCase(Record, frozen=True):
    """A case, and the relevance of a unit for the score in it, summed over its cells."""

    case: str
    value: float


class UnitRelevance(Record, frozen=True):
    """The relevance of one unit over the cases.

    Attributes:
        layer: Path of the layer.
        index: Number among the units of the layer.
        mean: Over the cases, in units of the score.
        rank: Among the units of the layer by the magnitude of the mean; 1 is the largest.
        top: Cases with the largest relevance, the largest first.
        bottom: Cases with the smallest relevance, the most negative first.
    """

    layer: str
    index: int
    mean: float
    rank: int
    top: tuple[RelevantCase, ...] = ()
    bottom: tuple[RelevantCase, ...] = ()


class RelevanceExemplarsRecord(Record, frozen=True):
    """The relevance of all units of some layers for one target.

    Attributes:
        target: In words.
        rule: How relevance was propagated.
        reason: Why it is not layer-wise relevance propagation; empty where it is.
        cases: In which there was something to explain.
        left_out: Cases in which there was nothing to explain, such as an absent class.
        sizes: Units of every layer.
        units: Layer after layer, in the order of their numbers.
    """

    schema_version: int = 1
    target: str
    rule: RelevanceRule
    reason: str = ""
    cases: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    sizes: dict[str, int]
    units: tuple[UnitRelevance, ...]

    def of(self, layer: str, index: int) -> UnitRelevance:
        """One of the units.

        Raises:
            KeyError: If it was not looked at.
        """
        for unit in self.units:
            if (unit.layer, unit.index) == (layer, index):
                return unit
        raise KeyError((layer, index))
