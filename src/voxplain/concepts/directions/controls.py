"""Concepts at random places: what a search finds where there is nothing to find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from voxplain.concepts.concept import Concept
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.engine.randomness import generator


def control_concept(concept: Concept, cohorts: Sequence[Cohort], seed: int = 0) -> Concept:
    """A concept of the same shape and frequency that has nothing to do with the images.

    A mask is moved around its grid by a random share between a quarter and three quarters of
    every axis; the value of a whole image is that of another case of the same cohort.

    Args:
        concept: The true one.
        cohorts: All cases.
        seed: Of the draws, which depend on the id of the case as well.
    """
    dealt = {case: other for cohort in cohorts for case, other in _dealt(cohort, seed).items()}

    def compute(case: CohortCase) -> Tensor | None:
        if concept.kind == "image":
            return concept.of(dealt[case.id]())
        mask = concept.of(case)
        return None if mask is None else _moved(mask, (seed, "moved", case.id))

    return replace(
        concept,
        name=f"{concept.name} at random",
        compute=compute,
        provenance=f"{concept.provenance}, moved to random places",
    )


def _dealt(cohort: Cohort, seed: int) -> dict[str, Callable[[], CohortCase]]:
    """For every case the one whose value it gets."""
    order = sorted(cohort.ids)
    picks = torch.randperm(len(order), generator=generator(seed, "dealt"))
    return {
        case: partial(cohort.__getitem__, order[int(pick)])
        for case, pick in zip(order, picks, strict=True)
    }


def _moved(mask: Tensor, key: tuple[object, ...]) -> Tensor:
    source = generator(*key)
    shares = 0.25 + 0.5 * torch.rand(3, generator=source)
    long = [axis for axis, size in enumerate(mask.shape) if size > 1]
    shifts = [int(share * mask.shape[axis]) for share, axis in zip(shares, long, strict=False)]
    return mask.roll(shifts, long)
