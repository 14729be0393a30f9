"""``explain_errors``: what carries the errors of a segmenter, and what corrects them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from voxplain.concepts.concept import Concept
from voxplain.concepts.errors.causes import (
    Replaceable,
    Structure,
    Units,
    modalities,
    single_units,
)
from voxplain.concepts.errors.cohort_errors import (
    CohortErrors,
    CohortReader,
    errors_of_cohort,
    units_to_replace,
)
from voxplain.concepts.errors.corrections import Tally, proposed, scored
from voxplain.concepts.errors.effects import effects_of
from voxplain.concepts.errors.grouping import grouped
from voxplain.concepts.errors.labeled_case import AskedClass, ErrorComponent, LabeledCase
from voxplain.concepts.errors.result import ErrorCauses
from voxplain.concepts.errors.settings import ErrorSettings, UnitSets
from voxplain.concepts.errors.together import together
from voxplain.concepts.errors.words import error_sentence, group_sentence, overall_sentence
from voxplain.engine.cohort import Cohort
from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError, InputError
from voxplain.models.model import Model
from voxplain.records.error_causes import (
    CorrectionRecord,
    ErrorCausesRecord,
    ErrorEffectRecord,
    ErrorRecord,
    TogetherRecord,
)
from voxplain.targets.field import Activation


def explain_errors(
    model: Model | nn.Module,
    cohort: Cohort,
    label: int,
    concepts: Sequence[Concept] = (),
    layers: Sequence[str] = (),
    unit_sets: UnitSets | None = None,
    *,
    value: int | None = None,
    ignore: int | None = None,
    activation: Activation = "auto",
    threshold: float = 0.5,
    settings: ErrorSettings | None = None,
) -> ErrorCauses:
    """What carries the false positives and false negatives of a class, and what corrects them.

    Modalities, structures, single units and sets of units are replaced in turn; effects are
    measured on the score of each error (mean log-odds over its component) and on its volume. The
    null of a unit or modality is what the same replacement does to the same region elsewhere in the
    foreground, where the class is neither there nor predicted; of a structure, the replacement of
    random regions of its shape; of a set, random sets. p values are adjusted per error and kind of
    cause (Benjamini and Hochberg). A cause is enough alone if it removes half of the error,
    significantly; where no unit is, this is said, and how many are together.
    Corrections are made for errors of one half of the patients, chosen there by the Dice of all
    other cases, and scored on the other half.

    Args:
        model: A segmenter.
        cohort: Cases with labels, in memory one at a time.
        label: The class.
        concepts: Structures that may carry errors; masks, not concepts of the whole image.
        layers: Whose units are replaced; the last feature layer if empty.
        unit_sets: Sets of units that are replaced together.
        value: The label of the class in the labels of the cases; every non-zero label if None.
        ignore: The label whose voxels are no errors.
        activation: What makes probabilities of the output.
        threshold: Probability above which the class is predicted under sigmoid.
        settings: How causes are looked for.

    Raises:
        InputError: If a case has no labels, or there is no case.
        ConfigError: If a concept is of the whole image, or a unit does not exist.
        TargetError: If the network has no dense output, or not this class.
        ModelError: With the nearest names, if a layer does not exist.
    """
    if not len(cohort):
        raise InputError("the cohort holds no case, so there are no errors to explain")
    whole = [concept.name for concept in concepts if concept.kind != "mask"]
    if whole:
        raise ConfigError(f"concept {whole[0]!r} is of the whole image; structures are masks")
    chosen, sets = settings or ErrorSettings(), dict(unit_sets or {})
    asked = AskedClass(label, value, ignore, activation, threshold)
    reader = CohortReader.of(Model.of(model), cohort, asked, layers, sets, chosen.seed)
    largest = errors_of_cohort(reader, chosen)
    units, remarks = units_to_replace(reader, largest, chosen)
    replaceable = _replaceable(largest, units, concepts, sets, chosen)
    errors = _explained(reader, largest, replaceable, chosen)
    corrections = _corrected(reader, largest, errors, replaceable, chosen)
    record = _record(reader, largest, errors, corrections, chosen)
    record = record.model_copy(update={"remarks": [*largest.remarks, *remarks]})
    return ErrorCauses(record, largest.errors)


def _replaceable(
    largest: CohortErrors,
    units: Mapping[Tap, Sequence[int]],
    concepts: Sequence[Concept],
    sets: UnitSets,
    settings: ErrorSettings,
) -> list[Replaceable]:
    """All that is replaced, one after another.

    Raises:
        ConfigError: If a set names a unit that does not exist.
    """
    substitutes = largest.substitutes
    for name, (path, channels) in sets.items():
        count = len(substitutes.means[Tap(path)])
        if not channels or not {*channels} <= {*range(count)}:
            raise ConfigError(f"set {name!r}: layer {path!r} has units 0 to {count - 1}")
    return [
        *modalities(largest.channels, substitutes),
        *(Structure(each.name, each, settings.fill, substitutes) for each in concepts),
        *(
            Units(name, Tap(path), tuple(sorted({*channels})), substitutes)
            for name, (path, channels) in sets.items()
        ),
        *(each for tap, own in units.items() for each in single_units(tap, own, substitutes)),
    ]


def _explained(
    reader: CohortReader,
    largest: CohortErrors,
    replaceable: Sequence[Replaceable],
    settings: ErrorSettings,
) -> list[ErrorRecord]:
    """Every error with the effects of all replacements, the largest first."""
    found: dict[str, ErrorRecord] = {}
    for name, errors in largest.by_case.items():
        case = reader.open(name)
        effects = effects_of(case, errors, replaceable, settings.draws, settings.seed)
        for error in errors:
            rows = effects[error.id]
            alone = _alone(rows, settings)
            several = (
                []
                if _has_unit(alone, rows)
                else _together(reader, largest, case, error, rows, settings)
            )
            record = _error_record(case, error, rows, alone, several, settings.level)
            sentence = error_sentence(record, largest.class_name, settings.enough)
            found[error.id] = record.model_copy(update={"sentence": sentence})
    return [found[error.id] for error in largest.errors]


def _alone(rows: Sequence[ErrorEffectRecord], settings: ErrorSettings) -> list[str]:
    """What removes enough of an error, significantly; what removes most comes first."""
    found = [
        row
        for row in rows
        if row.removed >= settings.enough and row.q is not None and row.q <= settings.level
    ]
    return [row.cause for row in sorted(found, key=lambda row: (-row.removed, -row.drop))]


def _has_unit(alone: Sequence[str], rows: Sequence[ErrorEffectRecord]) -> bool:
    return any(row.kind == "unit" and row.cause in alone for row in rows)


def _together(
    reader: CohortReader,
    largest: CohortErrors,
    case: LabeledCase,
    error: ErrorComponent,
    rows: Sequence[ErrorEffectRecord],
    settings: ErrorSettings,
) -> list[TogetherRecord]:
    found = [
        together(
            case, error, tap, rows, largest.substitutes,
            settings.enough, settings.draws, settings.seed,
        )
        for tap in reader.layers
    ]  # fmt: skip
    return [each for each in found if each is not None]


def _error_record(
    case: LabeledCase,
    error: ErrorComponent,
    rows: Sequence[ErrorEffectRecord],
    alone: Sequence[str],
    several: Sequence[TogetherRecord],
    level: float,
) -> ErrorRecord:
    return ErrorRecord(
        id=error.id,
        case=error.case,
        patient=error.patient,
        error=error.error,
        number=error.number,
        volume=error.volume,
        unit=error.unit,
        positions=error.positions,
        score=case.clean.score(error),
        effects=list(rows),
        alone=list(alone),
        units_alone=_has_unit(alone, rows),
        together=list(several),
        sentence="",
        remarks=_remarks(rows, level),
    )


def _remarks(rows: Sequence[ErrorEffectRecord], level: float) -> list[str]:
    """A sentence where the image has too few other places for a small p value."""
    places = [row.draws for row in rows if row.null == "places"]
    if not places or 1 / (1 + places[0]) <= level:
        return []
    return [
        f"the error fits into the image at only {places[0]} other places, so that no replacement "
        "of a unit or modality can be called significant"
    ]


def _corrected(
    reader: CohortReader,
    largest: CohortErrors,
    errors: Sequence[ErrorRecord],
    replaceable: Sequence[Replaceable],
    settings: ErrorSettings,
) -> list[CorrectionRecord]:
    """Corrections for errors of the selection patients, tried on all cases."""
    selection, held_out = _halves(reader.cohort, settings)
    pairs = [
        (error, record)
        for error, record in zip(largest.errors, errors, strict=True)
        if error.patient in selection
    ]
    by_name = {thing.name: thing for thing in replaceable}
    for error, record in pairs:
        for row in record.together:
            units = Units(
                _set_name(row, error), Tap(row.layer), tuple(row.channels), largest.substitutes
            )
            by_name[units.name] = units
    found = proposed(pairs, by_name, _set_name, settings.factors, settings.corrections)
    if not found:
        return []
    tallies = [Tally(correction) for correction in found]
    for name in reader.cohort.ids:
        case = reader.open(name)
        for tally in tallies:
            tally.add(case)
    return scored(tallies, selection, held_out, settings)


def _set_name(row: TogetherRecord, error: ErrorComponent) -> str:
    return f"the {len(row.channels)} units of {row.layer} that carry {error.id}"


def _halves(cohort: Cohort, settings: ErrorSettings) -> tuple[set[str], set[str]]:
    """The patients on whom corrections are chosen, and those on whom they are scored."""
    selection, held_out = cohort.split(settings.held_out, settings.seed)
    return {*selection.patients}, {*held_out.patients}


def _record(
    reader: CohortReader,
    largest: CohortErrors,
    errors: list[ErrorRecord],
    corrections: list[CorrectionRecord],
    settings: ErrorSettings,
) -> ErrorCausesRecord:
    selection, held_out = _halves(reader.cohort, settings)
    groups = grouped(errors, settings.alike)
    chosen = [row.sentence for row in corrections if row.chosen]
    if errors and not chosen:
        chosen = [
            "No correction that was tried removes enough of its error without lowering the Dice of "
            f"the other cases by more than {settings.cost:g}."
        ]
    sentences = [
        overall_sentence(errors, largest.class_name),
        *(error.sentence for error in errors),
        *(group_sentence(group) for group in groups if len(group.members) > 1),
        *(
            chosen
            or (["No correction that was tried removes enough of its error."] if errors else [])
        ),
    ]
    asked = {"value": reader.asked.value, "ignore": reader.asked.ignore}
    return ErrorCausesRecord(
        model=reader.model.name,
        label=reader.asked.label,
        class_name=largest.class_name,
        layers=[tap.path for tap in reader.layers],
        parameters=settings.model_dump(mode="json") | asked,
        errors=errors,
        groups=groups,
        alike=settings.alike,
        corrections=corrections,
        selection_patients=sorted(selection),
        held_out_patients=sorted(held_out),
        sentences=sentences,
    )
