"""Concepts that hold for whole images: a class, a scanner, a sex."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from voxplain.concepts.bank.spec import ConceptSpec, KnownConcepts, MaskOf
from voxplain.concepts.concept import Concept
from voxplain.engine.cohort import CohortCase


class FactConcepts(ConceptSpec):
    """What is known of whole images, such as their class or scanner.

    Attributes:
        fact: A key of the facts of the cases.
        values: A concept for each of them, ``"scanner = A"``.
        above: For numbers, a concept ``"age > 60"``.
        status: Whether it is a ground truth.
    """

    kind: Literal["fact"] = "fact"
    fact: str
    values: tuple[str | float, ...] = ()
    above: float | None = None
    status: Literal["explicit", "derived"] = Field(default="explicit")

    @model_validator(mode="after")
    def _one_question(self) -> FactConcepts:
        if not self.values and self.above is None:
            raise ValueError("state the values that are concepts, or a number with above")
        return self

    def concepts(self, known: KnownConcepts) -> tuple[Concept, ...]:
        """One concept per value; not known for cases without the fact."""
        found = [
            self._concept(f"{self.fact} = {value}", _equals(self.fact, value))
            for value in self.values
        ]
        if self.above is not None:
            name = f"{self.fact} > {self.above:g}"
            found.append(self._concept(name, _exceeds(self.fact, self.above)))
        return tuple(found)

    def _concept(self, name: str, compute: MaskOf) -> Concept:
        words = f"{self.fact} of the case"
        return Concept(name, "image", self.status, words, compute, self.fact)


def _equals(fact: str, value: str | float) -> MaskOf:
    def compute(case: CohortCase) -> Tensor | None:
        return torch.tensor(case.facts[fact] == value) if fact in case.facts else None

    return compute


def _exceeds(fact: str, limit: float) -> MaskOf:
    def compute(case: CohortCase) -> Tensor | None:
        value = case.facts.get(fact)
        return torch.tensor(value > limit) if isinstance(value, (int, float)) else None

    return compute
