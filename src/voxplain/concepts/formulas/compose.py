"""Compositional explanations: the formula over concepts that agrees most with a unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import nn

from voxplain.concepts.bank.bank import ConceptBank
from voxplain.concepts.concept import Concept
from voxplain.concepts.dissection.case_masks import (
    CaseMasks,
    Remarks,
    bits_of,
    case_masks,
    coded,
    compared_region,
)
from voxplain.concepts.dissection.dissect import Dissection
from voxplain.concepts.dissection.histograms import counted
from voxplain.concepts.dissection.units import LayerUnits, UnitGroup
from voxplain.concepts.formulas.bands import band_borders
from voxplain.concepts.formulas.search import (
    LONGEST,
    MOST_CONCEPTS,
    Formula,
    PatternCounts,
    best_formulas,
    formulas,
)
from voxplain.engine.cohort import Cohort
from voxplain.engine.interventions import UnitSet
from voxplain.errors import ConfigError, InputError
from voxplain.models.model import Model
from voxplain.records.formulas import UNNAMED, FormulaFound, FormulasRecord
from voxplain.statistics import ratio_intervals

Array = NDArray[np.float64]


def compose(
    model: Model | nn.Module,
    cohort: Cohort,
    bank: ConceptBank,
    dissection: Dissection,
    *,
    held_out: Cohort | None = None,
    units: Mapping[str, UnitSet] | None = None,
    longest: int = LONGEST,
    bands: int = 5,
) -> FormulasRecord:
    """Names units by formulas over concepts: all formulas are tried, none is guessed.

    A unit is on from the threshold of its best concept on; besides, each band of its values is
    explained on its own. Formulas are chosen on the cases that thresholds were chosen on, by
    their IoU, and scored on the held-out cases. A formula whose held-out IoU does not exceed the
    smallest IoU of the dissection is no name: the unit is ``unnamed``.

    Papers: Mu and Andreas, Compositional explanations of neurons, 2020; La Rosa et al., 2023.

    Args:
        model: The network that was dissected.
        cohort: The cases that it was dissected on.
        bank: The concepts; those that hold for whole images, or were not found, are left out.
        dissection: Of the network.
        held_out: As in :func:`dissect`.
        units: As in :func:`dissect`.
        longest: Number of concepts in a formula, up to 3.
        bands: Number of bands; 0 for none.

    Raises:
        ConfigError: If there are more than 25 concepts.
    """
    record = dissection.record
    found = {concept.name for concept in record.concepts if not concept.remark}
    concepts = [concept for concept in bank.masks if concept.name in found]
    if not concepts or len(concepts) > MOST_CONCEPTS:
        raise ConfigError(
            f"formulas are made of 1 to {MOST_CONCEPTS} concepts, and {len(concepts)} of the bank "
            "were found in the cases; choose some with bank.only"
        )
    groups = [group for group in dissection.values if group.origin == "layer"]
    region = record.region
    counting = _Counting(
        LayerUnits(Model.of(model), [group.layer for group in groups], units),
        concepts,
        region if region in ("foreground", "image") else bank[region],
        {group: _cuts(dissection, group, bands) for group in groups},
    )
    chosen = _chosen(counting, cohort.only(record.selection), groups, longest)
    scored_cases = (cohort if held_out is None else held_out).only(record.held_out)
    scored = _scored(counting, scored_cases, groups, chosen)
    names = [concept.name for concept in concepts]
    rows = [
        each
        for group in groups
        for each in _found(dissection, group, counting, chosen, scored, names)
    ]
    return FormulasRecord(
        model=record.model,
        concepts=tuple(names),
        smallest_iou=record.smallest_iou,
        searched=len(formulas(len(names), longest)),
        units=tuple(row for row in rows if row.band is None),
        bands=tuple(row for row in rows if row.band is not None),
        remarks=counting.remarks.sentences,
    )


@dataclass(frozen=True, eq=False)
class _Cuts:
    """Ranges of activations per unit that are explained: the unit as a whole, then its bands.

    Attributes:
        low: ``(units, ranges)``, included; NaN for a unit without a threshold.
        high: ``(units, ranges)``, excluded.
    """

    low: Array
    high: Array

    def inside(self, units: slice, values: NDArray[np.float32]) -> Iterator[NDArray[np.bool_]]:
        """Where units are in each range, ``(units, voxels)``."""
        numbers = values.astype(np.float64)
        for low, high in zip(self.low[units].T, self.high[units].T, strict=True):
            yield (numbers >= low[:, None]) & (numbers < high[:, None])


def _cuts(dissection: Dissection, group: UnitGroup, bands: int) -> _Cuts:
    values = dissection.values[group]
    units = [each for each in dissection.record.units if _is_of(each.origin, each.layer, group)]
    best: dict[str, tuple[float, float]] = {}
    for pair in dissection.record.pairs:
        if pair.origin == group.origin and pair.threshold is not None:
            score = pair.selection_iou or 0.0
            if score > best.get(pair.unit, (-1.0, 0.0))[0]:
                best[pair.unit] = (score, pair.threshold)
    threshold = np.array([best.get(unit.name, (0.0, np.nan))[1] for unit in units])[:, None]
    infinite = np.full_like(threshold, np.inf)
    if not bands:
        return _Cuts(threshold, infinite)
    borders = band_borders(values.edges, values.counts, bands)
    low = np.concatenate([threshold, -infinite, borders], axis=1)
    return _Cuts(low, np.concatenate([infinite, borders, infinite], axis=1))


def _is_of(origin: str, layer: str, group: UnitGroup) -> bool:
    return (origin, layer) == (group.origin, group.layer)


@dataclass(eq=False)
class _Counting:
    """Goes over cases and compares ranges of units with combinations of concepts."""

    source: LayerUnits
    concepts: Sequence[Concept]
    region: Concept | str
    cuts: Mapping[UnitGroup, _Cuts]
    remarks: Remarks = field(default_factory=Remarks)

    def cases(
        self, cohort: Cohort
    ) -> Iterator[tuple[str, CaseMasks, Iterator[tuple[UnitGroup, slice, NDArray[np.float32]]]]]:
        """The patient, the masks and the values of units of every case that knows all concepts."""
        for case in cohort:
            try:
                inside = compared_region(case, self.region)
            except InputError as error:
                self.remarks.append(f"{error}; the case is left out")
                continue
            masks = case_masks(case, self.concepts, inside, self.remarks)
            if not masks.known.all():
                self.remarks.append("cases that do not know all concepts are left out of formulas")
                continue
            yield (
                case.patient,
                masks,
                (
                    (maps.group, rows, maps.at(rows, masks.places))
                    for maps in self.source.of(case, self.remarks)
                    for rows in maps.chunks(masks.voxels)
                ),
            )


def _chosen(
    counting: _Counting, cohort: Cohort, groups: Sequence[UnitGroup], longest: int
) -> dict[UnitGroup, list[list[tuple[Formula | None, float]]]]:
    """The best formula per range and unit of each group, on the selection cases."""
    numbers: dict[int, int] = {}
    totals = np.zeros(0)
    on = {group: np.zeros((*counting.cuts[group].low.T.shape, 0)) for group in groups}
    for _, masks, units in counting.cases(cohort):
        codes, index = np.unique(coded(masks.masks), return_inverse=True)
        for code in codes.tolist():
            numbers.setdefault(code, len(numbers))
        columns = np.array([numbers[code] for code in codes.tolist()])
        totals = _widened(totals, len(numbers))
        totals[columns] += np.bincount(index.reshape(-1), minlength=len(codes))
        on = {group: _widened(counts, len(numbers)) for group, counts in on.items()}
        for group, rows, values in units:
            for number, inside in enumerate(counting.cuts[group].inside(rows, values)):
                found = counted(index.reshape(-1) * 2 + inside, 2 * len(codes))[:, 1::2]
                on[group][number, rows][:, columns] += found
    patterns = bits_of(np.array(list(numbers)), len(counting.concepts)).T
    return {
        group: [best_formulas(PatternCounts(patterns, totals, each), longest) for each in counts]
        for group, counts in on.items()
    }


def _widened(counts: Array, width: int) -> Array:
    missing = width - counts.shape[-1]
    return np.pad(counts, [(0, 0)] * (counts.ndim - 1) + [(0, missing)])


@dataclass(frozen=True, eq=False)
class _Scored:
    """IoU on held-out cases and its intervals, ``(ranges, units)`` and ``(2, ranges, units)``."""

    iou: Array
    intervals: Array


def _scored(
    counting: _Counting,
    cohort: Cohort,
    groups: Sequence[UnitGroup],
    chosen: Mapping[UnitGroup, Sequence[Sequence[tuple[Formula | None, float]]]],
) -> dict[UnitGroup, _Scored]:
    both: dict[UnitGroup, list[Array]] = {group: [] for group in groups}
    union: dict[UnitGroup, list[Array]] = {group: [] for group in groups}
    patients = []
    for patient, masks, units in counting.cases(cohort):
        patients.append(patient)
        held: dict[Formula, NDArray[np.bool_]] = {}
        for group in groups:
            both[group].append(np.zeros(counting.cuts[group].low.T.shape))
            union[group].append(np.zeros(counting.cuts[group].low.T.shape))
        for group, rows, values in units:
            for number, inside in enumerate(counting.cuts[group].inside(rows, values)):
                for offset, is_on in enumerate(inside):
                    unit = rows.start + offset
                    formula = chosen[group][number][unit][0]
                    if formula is None:
                        continue
                    if formula not in held:
                        held[formula] = formula.holds(masks.masks)
                    together = np.count_nonzero(held[formula] & is_on)
                    either = np.count_nonzero(held[formula] | is_on)
                    both[group][-1][number, unit] = together
                    union[group][-1][number, unit] = either
    return {group: _over_cases(both[group], union[group], patients) for group in groups}


def _over_cases(both: list[Array], union: list[Array], patients: list[str]) -> _Scored:
    if not patients:
        raise InputError("no held-out case knows all concepts; choose some with bank.only")
    above, below = np.stack(both), np.stack(union)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = above.sum(axis=0) / below.sum(axis=0)
    cases, shape = len(above), iou.shape
    ends = ratio_intervals(above.reshape(cases, -1), below.reshape(cases, -1), patients)
    if ends is None:
        return _Scored(iou, np.full((2, *shape), np.nan))
    return _Scored(iou, ends.reshape(2, *shape))


def _found(
    dissection: Dissection,
    group: UnitGroup,
    counting: _Counting,
    chosen: Mapping[UnitGroup, Sequence[Sequence[tuple[Formula | None, float]]]],
    scored: Mapping[UnitGroup, _Scored],
    names: Sequence[str],
) -> Iterator[FormulaFound]:
    record, cuts = dissection.record, counting.cuts[group]
    units = [each for each in record.units if _is_of(each.origin, each.layer, group)]
    for number, column in enumerate(chosen[group]):
        for unit, (formula, selection) in enumerate(column):
            iou = float(scored[group].iou[number, unit])
            low, high = scored[group].intervals[:, number, unit]
            text = "" if formula is None else formula.in_words(names)
            is_name = formula is not None and iou > record.smallest_iou
            yield FormulaFound(
                unit=units[unit].name,
                band=number - 1 if number else None,
                low=_number(cuts.low[unit, number]),
                high=_number(cuts.high[unit, number]),
                formula=text if is_name else UNNAMED,
                best=text,
                length=0 if formula is None else len(formula.concepts),
                selection_iou=_number(selection),
                iou=_number(iou),
                interval=(float(low), float(high)) if np.isfinite(low) else None,
            )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
