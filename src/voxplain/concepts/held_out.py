"""Cases to select on, and held-out cases to score: a drawn share, or a given test set."""

from __future__ import annotations

from voxplain.engine.cohort import Cohort
from voxplain.errors import ConfigError, InputError


def parted(cohort: Cohort, held_out: float | Cohort, seed: int, what: str) -> tuple[Cohort, Cohort]:
    """Selection cases and held-out cases, of different patients.

    Args:
        cohort: All cases, or those to select on.
        held_out: The share of the patients to hold out, or the cases that are held out.
        seed: Of the draw.
        what: Is scored, in words.

    Raises:
        ConfigError: If a patient is on both sides.
        InputError: If one side is empty.
    """
    if isinstance(held_out, Cohort):
        selection, scored = cohort, held_out
    else:
        selection, scored = cohort.split(held_out, seed)
    both = {*selection.patients} & {*scored.patients}
    if both:
        raise ConfigError(
            f"{len(both)} patients are among the selection cases and the held-out cases; a patient "
            "belongs to one of them"
        )
    if not len(selection) or not len(scored):
        raise InputError(
            f"{what} is scored on patients that it was not found on, and the cohort has "
            f"{len({*cohort.patients})}; it takes two at least"
        )
    return selection, scored
