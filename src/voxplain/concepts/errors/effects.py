"""What every replacement does to the errors of one case, against a null."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch

from voxplain.concepts.errors.causes import Replaceable
from voxplain.concepts.errors.labeled_case import ErrorComponent, LabeledCase, Outcome
from voxplain.concepts.errors.placements import Placements
from voxplain.engine.randomness import generator
from voxplain.records.error_causes import ErrorEffectRecord
from voxplain.statistics import benjamini_hochberg

Effects = dict[str, list[ErrorEffectRecord]]
"""By the id of the error."""


def effects_of(
    case: LabeledCase,
    errors: Sequence[ErrorComponent],
    things: Iterable[Replaceable],
    draws: int,
    seed: int,
) -> Effects:
    """The effects of all replacements on the errors of a case, with p adjusted per error.

    Args:
        case: The case.
        errors: Of this case.
        things: What is replaced, one after another.
        draws: Random sets or regions per thing whose null they are.
        seed: Of these.
    """
    places = {error.id: Placements(error.mask, case.elsewhere) for error in errors}
    found: Effects = {error.id: [] for error in errors}
    for thing in things:
        outcome = thing.outcome(case)
        if outcome is None:
            continue
        nulls = _nulls(case, errors, thing, draws, seed)
        for error in errors:
            effect = effect_on(error, case, thing, outcome)
            p, count = _p_value(case, error, effect.drop, outcome, places[error.id], nulls)
            found[error.id].append(effect.model_copy(update={"p": p, "draws": count}))
    return {key: adjusted(effects) for key, effects in found.items()}


def effect_on(
    error: ErrorComponent, case: LabeledCase, thing: Replaceable, outcome: Outcome
) -> ErrorEffectRecord:
    """The effect of one replacement on one error, without p."""
    removed = error.positions - outcome.remaining(error)
    change = case.dice(outcome) - case.dice(case.clean)
    return ErrorEffectRecord(
        cause=thing.name,
        kind=thing.kind,
        layer=thing.layer,
        channels=thing.units,
        drop=case.clean.score(error) - outcome.score(error),
        removed=removed / error.positions,
        removed_volume=removed * case.per_cell,
        dice_change=change if math.isfinite(change) else None,
        null=thing.null,
    )


def adjusted(effects: Sequence[ErrorEffectRecord]) -> list[ErrorEffectRecord]:
    """The effects with p adjusted over those of the same kind, the largest drop first."""
    kinds = dict.fromkeys(row.kind for row in effects)
    rows = [row for kind in kinds for row in _family([row for row in effects if row.kind == kind])]
    return sorted(rows, key=lambda row: -row.drop)


def _family(rows: Sequence[ErrorEffectRecord]) -> list[ErrorEffectRecord]:
    q_values = benjamini_hochberg([math.nan if row.p is None else row.p for row in rows])
    return [
        row.model_copy(update={"q": q if math.isfinite(q) else None})
        for row, q in zip(rows, q_values, strict=True)
    ]


def _nulls(
    case: LabeledCase,
    errors: Sequence[ErrorComponent],
    thing: Replaceable,
    draws: int,
    seed: int,
) -> Mapping[str, list[float]] | None:
    """Drops under random sets or regions by error; None where the null are other places."""
    if thing.null == "places":
        return None
    source = generator(seed, case.case.id, thing.name)
    outcomes = [other.outcome(case) for other in thing.random(case, draws, source)]
    return {
        error.id: [
            case.clean.score(error) - outcome.score(error) for outcome in outcomes if outcome
        ]
        for error in errors
    }


def _p_value(
    case: LabeledCase,
    error: ErrorComponent,
    drop: float,
    outcome: Outcome,
    places: Placements,
    nulls: Mapping[str, list[float]] | None,
) -> tuple[float | None, int]:
    """The p value of a drop, and how many draws it is of; None without any."""
    if nulls is None:
        sign = 1 if error.error == "fp" else -1
        drops = sign * (case.clean.margin - outcome.margin)
        return places.share_at_least(drops, drop), len(places)
    null = torch.tensor(nulls[error.id], dtype=torch.float64)
    if not len(null):
        return None, 0
    return (1 + int((null >= drop - 1e-9).sum())) / (1 + len(null)), len(null)
