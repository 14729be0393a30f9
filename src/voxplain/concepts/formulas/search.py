"""Exhaustive search for the formula over concepts that agrees most with a unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import ConfigError

Array = NDArray[np.float64]
Operator = Literal["AND", "OR", "AND NOT"]
MOST_CONCEPTS = 25
"""With more of them a search over all formulas takes too long."""
LONGEST = 3
_OPERATORS: tuple[Operator, ...] = ("AND", "OR", "AND NOT")
_AT_ONCE = 8192
"""Formulas that are compared with units together."""


@dataclass(frozen=True)
class Formula:
    """Concepts joined from left to right, ``((a op b) op c)``.

    Attributes:
        concepts: Their numbers.
        operators: One fewer.
    """

    concepts: tuple[int, ...]
    operators: tuple[Operator, ...] = ()

    def holds(self, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Where it holds, ``(positions,)``.

        Args:
            masks: Where every concept holds, ``(concepts, positions)``.
        """
        found = np.array(masks[self.concepts[0]])
        for operator, number in zip(self.operators, self.concepts[1:], strict=True):
            found = _joined(found, masks[number], operator)
        return found

    def in_words(self, names: Sequence[str]) -> str:
        """The formula with the names of concepts, such as ``(WT AND NOT ET) AND left``."""
        text = names[self.concepts[0]]
        for place, operator in enumerate(self.operators):
            left = f"({text})" if place else text
            text = f"{left} {operator} {names[self.concepts[place + 1]]}"
        return text


@dataclass(frozen=True, eq=False)
class PatternCounts:
    """Voxels by the combination of concepts that they show.

    All that a formula needs is how many voxels of each combination a unit is on at, since a
    formula holds for all voxels of a combination or for none: a bit set over combinations.

    Attributes:
        patterns: ``(concepts, combinations)`` of bool.
        all: Voxels of every combination, ``(combinations,)``.
        on: Voxels of every combination at which a unit is on, ``(units, combinations)``.
    """

    patterns: NDArray[np.bool_]
    all: Array
    on: Array

    def iou(self, held: NDArray[np.bool_]) -> Array:
        """IoU of every unit with formulas ``(formulas, combinations)``, ``(formulas, units)``.

        NaN where both are empty.
        """
        where = held.astype(np.float64)
        both = where @ self.on.T
        union = (where @ self.all)[:, None] + self.on.sum(axis=1)[None] - both
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(union > 0, both / union, np.nan))


def formulas(count: int, longest: int = LONGEST) -> list[Formula]:
    """All formulas over concepts up to a length, the shorter ones first.

    Each is left out that says the same as another one by the order of equal operators.

    Args:
        count: Number of concepts.
        longest: Number of concepts in a formula.

    Raises:
        ConfigError: If there are too many to be searched.
    """
    if count > MOST_CONCEPTS or not 1 <= longest <= LONGEST:
        raise ConfigError(
            f"all formulas of {longest} out of {count} concepts are too many; "
            f"up to {LONGEST} out of {MOST_CONCEPTS} are searched"
        )
    found = [Formula((number,)) for number in range(count)]
    shorter = found
    for _ in range(longest - 1):
        shorter = [
            Formula((*formula.concepts, number), (*formula.operators, operator))
            for formula in shorter
            for operator in _OPERATORS
            for number in range(count)
            if number not in formula.concepts and _is_ordered(formula, operator, number)
        ]
        found = found + shorter
    return found


def best_formulas(
    counts: PatternCounts, longest: int = LONGEST
) -> list[tuple[Formula | None, float]]:
    """For every unit the formula with the highest IoU, the first of equals, and its IoU.

    None with NaN for a unit that agrees with no formula, as one that is never on.

    Papers: Mu and Andreas, Compositional explanations of neurons, 2020; La Rosa et al., 2023.

    Args:
        counts: Of the cases to select on.
        longest: Number of concepts in a formula.
    """
    every = formulas(len(counts.patterns), longest)
    units = len(counts.on)
    best, chosen = np.full(units, -np.inf), np.full(units, -1)
    for first in range(0, len(every), _AT_ONCE):
        held = np.stack([each.holds(counts.patterns) for each in every[first : first + _AT_ONCE]])
        iou = np.nan_to_num(counts.iou(held), nan=-np.inf)
        number = iou.argmax(axis=0)
        value = iou[number, np.arange(units)]
        is_better = value > best + 1e-12
        best, chosen = np.where(is_better, value, best), np.where(is_better, first + number, chosen)
    return [
        (every[number], float(value)) if number >= 0 and value > 0 else (None, float("nan"))
        for number, value in zip(chosen, best, strict=True)
    ]


def _joined(
    left: NDArray[np.bool_], right: NDArray[np.bool_], operator: Operator
) -> NDArray[np.bool_]:
    if operator == "OR":
        return left | right
    return left & (right if operator == "AND" else ~right)


def _is_ordered(formula: Formula, operator: Operator, number: int) -> bool:
    """Whether this is the one order that is kept of ``x op a op b`` and ``x op b op a``.

    Of the first two concepts, AND and OR need theirs in order, too.
    """
    if not formula.operators:
        return operator == "AND NOT" or formula.concepts[0] < number
    return operator != formula.operators[-1] or formula.concepts[-1] < number
