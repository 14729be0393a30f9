"""Corrections: what removes an error, and what this does to all other cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from voxplain.concepts.errors.causes import Modality, Replaceable, SingleUnit, Units
from voxplain.concepts.errors.effects import effect_on
from voxplain.concepts.errors.labeled_case import ErrorComponent, LabeledCase
from voxplain.concepts.errors.settings import ErrorSettings
from voxplain.concepts.errors.words import correction_sentence
from voxplain.concepts.summaries import summary_record
from voxplain.records.error_causes import (
    CorrectionRecord,
    ErrorRecord,
    HalfRecord,
    OwnEffectRecord,
    TogetherRecord,
)
from voxplain.statistics import compare, summarize


@dataclass(frozen=True, eq=False)
class Correction:
    """A replacement that is meant to remove one error.

    Attributes:
        thing: What is replaced or scaled.
        error: The error it is made for.
    """

    thing: Replaceable
    error: ErrorComponent

    @property
    def factor(self) -> float:
        """What is left of the deviation of units; 0 for all else."""
        return self.thing.factor if isinstance(self.thing, Units) else 0.0


def proposed(
    errors: Sequence[tuple[ErrorComponent, ErrorRecord]],
    things: Mapping[str, Replaceable],
    set_name: Callable[[TogetherRecord, ErrorComponent], str],
    factors: Sequence[float],
    most: int,
) -> list[Correction]:
    """Corrections for the errors: what removes most of each, ablated and scaled.

    Args:
        errors: With their effects; those of the patients who choose.
        things: What was replaced, by name, and sets of units that carry an error together.
        set_name: Of a set of units that carries an error together.
        factors: What may be left of the deviation of units.
        most: How many corrections there are at most.
    """
    found: dict[tuple[str, float], Correction] = {}
    ranked = [
        (removed, drop, error, thing)
        for error, record in errors
        for removed, drop, name in _removing(error, record, set_name)
        if isinstance(thing := things.get(name), (Units, Modality))
    ]
    ranked.sort(key=lambda each: (-each[0], -each[1]))
    for _, _, error, thing in ranked:
        for each in _scaled(thing, factors):
            correction = Correction(each, error)
            found.setdefault((each.name, correction.factor), correction)
    return list(found.values())[:most]


def _removing(
    error: ErrorComponent,
    record: ErrorRecord,
    set_name: Callable[[TogetherRecord, ErrorComponent], str],
) -> Iterator[tuple[float, float, str]]:
    """What removes something of an error: the share, the drop of its score, and the name."""
    for row in record.effects:
        if row.removed > 0:
            yield row.removed, row.drop, row.cause
    for several in record.together:
        if several.removed > 0:
            yield several.removed, 0.0, set_name(several, error)


def _scaled(thing: Units | Modality, factors: Sequence[float]) -> list[Units | Modality]:
    if isinstance(thing, Modality):
        return [thing]
    kind = SingleUnit if isinstance(thing, SingleUnit) else Units
    return [
        kind(thing.name, thing.tap, thing.channels, thing.substitutes, factor) for factor in factors
    ]


@dataclass(eq=False)
class Tally:
    """What a correction does, case after case.

    Attributes:
        correction: The correction.
        own: Its effect on the error it is made for, once that case came by.
    """

    correction: Correction
    own: OwnEffectRecord | None = None
    _rows: list[_CaseBeforeAndAfter] = field(default_factory=list)

    def add(self, case: LabeledCase) -> None:
        """Applies the correction to a case."""
        outcome = self.correction.thing.outcome(case)
        if outcome is None:
            return
        clean, error = case.clean, self.correction.error
        if case.case.id == error.case:
            effect = effect_on(error, case, self.correction.thing, outcome)
            self.own = OwnEffectRecord(
                error=error.id,
                drop=effect.drop,
                removed=effect.removed,
                removed_volume=effect.removed_volume,
            )
        volumes = [case.volume(kind, each) for kind in ("fp", "fn") for each in (clean, outcome)]
        dice = (case.dice(clean), case.dice(outcome))
        self._rows.append(
            _CaseBeforeAndAfter(case.case.id, case.case.patient, dice, tuple(volumes))
        )

    def half(self, patients: set[str], seed: int) -> HalfRecord | None:
        """What it does to the other cases of some patients; None without any."""
        rows = [
            row
            for row in self._rows
            if row.patient in patients and row.case != self.correction.error.case
        ]
        if not rows:
            return None
        changes = [after - before for before, after in (row.dice for row in rows)]
        whose = [row.patient for row in rows]
        summary = summarize(changes, whose, seed)
        test = compare([row.dice[1] for row in rows], [row.dice[0] for row in rows], seed, whose)
        sums = [sum(row.volumes[number] for row in rows) for number in range(4)]
        return HalfRecord(
            patients=len({*whose}),
            dice_change=summary_record(summary),
            p=test.p if math.isfinite(test.p) else None,
            worse_cases=sum(change < 0 for change in changes),
            fp_before=sums[0],
            fp_after=sums[1],
            fn_before=sums[2],
            fn_after=sums[3],
        )


@dataclass(frozen=True)
class _CaseBeforeAndAfter:
    """A case before and after a correction; volumes are fp, fp after, fn, fn after."""

    case: str
    patient: str
    dice: tuple[float, float]
    volumes: tuple[float, ...]


def scored(
    tallies: Sequence[Tally], selection: set[str], held_out: set[str], settings: ErrorSettings
) -> list[CorrectionRecord]:
    """The corrections, one of them chosen on the selection patients, scored on the others.

    Chosen is what removes enough of its error and has the best mean change of Dice on the other
    cases of the selection patients; nothing where nothing removes enough, or at too high a cost.
    """
    rows = []
    for tally in tallies:
        chosen_on = tally.half(selection, settings.seed)
        scored_on = tally.half(held_out, settings.seed)
        if tally.own is not None and chosen_on is not None:
            rows.append(_record(tally, tally.own, chosen_on, scored_on))
    fitting = [
        (change, -number)
        for number, row in enumerate(rows)
        if row.own.removed >= settings.enough
        and (change := row.selection.dice_change.mean) is not None
        and change >= -settings.cost
    ]
    best = -max(fitting)[1] if fitting else None
    return [row.model_copy(update={"chosen": n == best}) for n, row in enumerate(rows)]


def _record(
    tally: Tally, own: OwnEffectRecord, selection: HalfRecord, held_out: HalfRecord | None
) -> CorrectionRecord:
    thing = tally.correction.thing
    record = CorrectionRecord(
        name=thing.name,
        kind=thing.kind,
        layer=thing.layer,
        channels=thing.units,
        factor=tally.correction.factor,
        own=own,
        selection=selection,
        held_out=held_out,
        verdict=_verdict(held_out),
        sentence="",
    )
    sentence = correction_sentence(record, tally.correction.error.unit)
    return record.model_copy(update={"sentence": sentence})


def _verdict(half: HalfRecord | None) -> str:
    """By the interval of the change of Dice on the held-out patients."""
    interval = None if half is None else half.dice_change.interval
    if interval is None or interval[0] <= 0 <= interval[1]:
        return "not settled"
    return "helps" if interval[0] > 0 else "harms"
