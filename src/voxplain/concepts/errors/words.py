"""Causes and corrections in sentences that a clinician can read."""

from __future__ import annotations

from collections.abc import Sequence

from voxplain.records.error_causes import (
    CorrectionRecord,
    ErrorEffectRecord,
    ErrorGroupRecord,
    ErrorRecord,
    TogetherRecord,
)

_KINDS = {"fp": "false positive", "fn": "false negative"}


def error_sentence(error: ErrorRecord, class_name: str, enough: float) -> str:
    """What carries an error, or that nothing does alone."""
    subject = (
        f"{_KINDS[error.error].capitalize()} {error.number} of {class_name} in {error.case} "
        f"({error.volume:.2g} {error.unit})"
    )
    by_name = {row.cause: row for row in error.effects}
    parts = [_effect_words(by_name[name]) for name in error.alone[:3]]
    text = f"{subject}: " + ("; ".join(parts) if parts else "no single thing is its cause")
    if not error.units_alone:
        text += "; no unit alone causes it" + _nearest_unit(error.effects, enough)
        text += _together_words(error.together, enough)
    return text + "."


def _effect_words(row: ErrorEffectRecord) -> str:
    cost = "" if row.dice_change is None else f", Dice of the case {row.dice_change:+.2f}"
    q = "" if row.q is None else f"q = {row.q:.2g}"
    return f"replacing {row.cause} removes {row.removed:.0%} of it ({q}{cost})"


def _nearest_unit(effects: Sequence[ErrorEffectRecord], enough: float) -> str:
    units = [row for row in effects if row.kind == "unit"]
    if not units:
        return ""
    best = max(units, key=lambda row: (row.removed, row.drop))
    text = f": the strongest, {best.cause}, removes {best.removed:.0%} of it"
    if best.removed < enough:
        return text
    if best.p is None:
        return f"{text}, and what it does elsewhere is not known"
    return f"{text}, and does as much elsewhere (p = {best.p:.2g})"


def _together_words(found: Sequence[TogetherRecord], enough: float) -> str:
    if not found:
        return ""
    enough_units = [row for row in found if row.count is not None]
    if not enough_units:
        most = max(found, key=lambda row: row.removed)
        return (
            f"; no number of the strongest units of a layer removes {enough:.0%} of it together: "
            f"{most.tried} of {most.layer} remove {most.removed:.0%}"
        )
    best = min(enough_units, key=lambda row: row.count or 0)
    text = f"; the {best.count} strongest units of {best.layer} together remove {best.removed:.0%}"
    if best.random_removed is None:
        return text
    return f"{text}, {best.count} random ones {best.random_removed:.0%} on average"


def overall_sentence(errors: Sequence[ErrorRecord], class_name: str) -> str:
    """How many errors there are, and how many of them one unit carries."""
    if not errors:
        return f"No errors of {class_name} were found."
    carried = sum(error.units_alone for error in errors)
    explained = sum(bool(error.alone) for error in errors)
    plural = "s" * (len(errors) > 1)
    return (
        f"Of {len(errors)} error{plural} of {class_name}, {explained} lose at least half of their "
        f"volume when one thing is replaced, and {carried} when a single unit is."
    )


def group_sentence(group: ErrorGroupRecord) -> str:
    """Which errors have the same cause."""
    causes = ", ".join(group.causes) if group.causes else "nothing that was replaced"
    return (
        f"{', '.join(group.members)} have the same cause (mean similarity of effects "
        f"{group.similarity:.2f}): {causes}."
    )


def correction_sentence(row: CorrectionRecord, unit: str) -> str:
    """What a correction does to its error and to the other cases."""
    text = (
        f"{_how(row)} removes {row.own.removed_volume:.2g} {unit} ({row.own.removed:.0%}) of "
        f"{row.own.error}; Dice of the other cases changes by "
        f"{_number(row.selection.dice_change.mean)} on the patients it is chosen on"
    )
    half = row.held_out
    if half is None:
        return f"{text}; there are no held-out patients to score it on."
    interval = half.dice_change.interval
    within = (
        f"(95 % interval {_number(interval[0])} to {_number(interval[1])})"
        if interval
        else "(too few for an interval)"
    )
    verdict = {
        "helps": "it helps",
        "harms": "it harms",
        "not settled": "whether it helps is not settled",
    }[row.verdict]
    return (
        f"{text} and by {_number(half.dice_change.mean)} on {half.patients} held-out patients "
        f"{within}: {verdict}."
    )


def _how(row: CorrectionRecord) -> str:
    if row.factor:
        return f"Scaling {row.name} by {row.factor:g}"
    return f"Replacing {row.name}"


def _number(value: float | None) -> str:
    return "an undefined amount" if value is None else f"{value:+.3f}"
