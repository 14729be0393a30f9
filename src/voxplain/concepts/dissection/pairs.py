"""From counts to scores: every unit with every concept on held-out cases, and the detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from voxplain.concepts.dissection.agreement import Agreement
from voxplain.concepts.dissection.counting import GroupState
from voxplain.concepts.dissection.nulls import pooled_p
from voxplain.concepts.dissection.settings import DissectionSettings
from voxplain.concepts.dissection.sweeps import Sweeps, agreement_of
from voxplain.concepts.dissection.units import UnitGroup
from voxplain.records.dissection import PairDissected
from voxplain.statistics import benjamini_hochberg, ratio_intervals

Array = NDArray[np.float64]


def score_pairs(sweeps: Sweeps, settings: DissectionSettings) -> list[PairDissected]:
    """Scores of every unit with every concept, detectors decided.

    A detector of a concept is a unit of a layer for which the lower end of the interval of its
    IoU exceeds the smallest IoU asked for, the best of any modality and of any unit of a random
    network, and the 95th percentile of unrelated masks; and whose p value, adjusted over all units
    and concepts, is at most the level.
    """
    if not sweeps.concepts:
        return []
    tables = {group: _GroupScores(sweeps, state) for group, state in sweeps.groups.items()}
    adjusted = _adjusted(tables)
    bars = {group: _bars(tables, group, settings) for group in tables}
    return [
        table.pair(unit, concept, group, adjusted[group], bars[group], settings.level)
        for group, table in tables.items()
        for unit in range(len(table.state.names))
        for concept in range(len(sweeps.concepts))
    ]


class _GroupScores:
    """Scores of one group of units, ``(units, concepts)`` each."""

    def __init__(self, sweeps: Sweeps, state: GroupState) -> None:
        self.state = state
        self.concepts = [concept.name for concept in sweeps.concepts]
        sizes, totals = np.stack(sweeps.sizes), np.stack(sweeps.totals)
        both, on = np.stack(state.both), np.stack(state.on)
        self.size, self.total = sizes.sum(axis=0), totals.sum(axis=0)
        scored = (state.chosen >= 0) & (self.size > 0) & (self.size < self.total)
        together = Agreement(both.sum(axis=0), on.sum(axis=0), self.size[None], self.total[None])
        self.iou = np.where(scored, together.iou, np.nan)
        self.values: dict[str, Array] = {
            "iou": self.iou,
            "on": together.on / np.maximum(self.total, 1),
            "dice": together.dice,
            "precision": together.precision,
            "recall": together.recall,
            "threshold": _thresholds(state),
            "selection_iou": _selection_iou(state),
            "null": _percentile(state.null.iou),
            "chance": _chance(together),
            **_over_thresholds(state, together, len(self.concepts)),
        }
        self.values = {name: np.where(scored, value, np.nan) for name, value in self.values.items()}
        self.p = pooled_p(self.iou, state.null.iou)
        self.per_case = _per_case(both, on, sizes)
        self.intervals = _intervals(both, on, sizes, sweeps.patients, self.iou)

    def pair(
        self,
        unit: int,
        concept: int,
        group: UnitGroup,
        adjusted: Array,
        bars: Array,
        level: float,
    ) -> PairDissected:
        """One unit with one concept."""
        numbers = {name: _number(value[unit, concept]) for name, value in self.values.items()}
        interval = self.intervals[:, unit, concept]
        low, bar = float(interval[0]), float(bars[unit, concept])
        p = _number(adjusted[unit, concept])
        known = bool(np.isfinite(interval).all())
        is_detector = known and low > bar and p is not None and p <= level
        quartiles = self.per_case[:, unit, concept]
        is_defined = numbers["iou"] is not None and bool(np.isfinite(quartiles).all())
        return PairDissected(
            unit=self.state.names[unit],
            origin=group.origin,
            concept=self.concepts[concept],
            interval=(low, float(interval[1])) if known else None,
            case_median=float(quartiles[1]) if is_defined else None,
            case_quartiles=(float(quartiles[0]), float(quartiles[2])) if is_defined else None,
            p=_number(self.p[unit, concept]),
            p_adjusted=p,
            bar=_number(bar) if group.origin == "layer" else None,
            detector=is_detector if known and group.origin == "layer" else None,
            **numbers,
        )


def _over_thresholds(state: GroupState, together: Agreement, concepts: int) -> dict[str, Array]:
    """What is taken over all thresholds, from the histograms of the held-out cases."""
    columns = [agreement_of(state.held_out, number).with_all for number in range(concepts)]
    return {
        "average_precision": _columns([each.average_precision for each in columns]),
        "auc": _columns([each.auc for each in columns]),
        "information": together.information,
    }


def _columns(columns: Sequence[Array]) -> Array:
    return np.stack(columns, axis=1)


def _thresholds(state: GroupState) -> Array:
    return np.take_along_axis(state.edges.double().numpy(), np.maximum(state.chosen, 0), axis=1)


def _selection_iou(state: GroupState) -> Array:
    columns = []
    for number in range(state.chosen.shape[1]):
        iou = agreement_of(state.selection, number).iou
        columns.append(np.take_along_axis(iou, np.maximum(state.chosen[:, number, None], 0), 1))
    return np.concatenate(columns, axis=1)


def _chance(together: Agreement) -> Array:
    """IoU with a random mask of equal frequency."""
    p, q = (
        together.on / np.maximum(together.total, 1),
        together.size / np.maximum(together.total, 1),
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(p * q / (p + q - p * q))


def _per_case(both: Array, on: Array, sizes: Array) -> Array:
    """Quartiles over cases of the IoU in each, ``(3, units, concepts)``; NaN where undefined."""
    union = on + sizes[:, None] - both
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = np.where(union > 0, both / union, np.nan)
    found = np.full((3, *both.shape[1:]), np.nan)
    known = np.isfinite(iou)
    some, every = known.any(axis=0) & ~known.all(axis=0), known.all(axis=0)
    if every.any():  # many times faster than the one below
        found[:, every] = np.quantile(iou[:, every], _QUARTILES, axis=0)
    if some.any():
        found[:, some] = np.nanquantile(iou[:, some], _QUARTILES, axis=0)
    return found


_QUARTILES = (0.25, 0.5, 0.75)


def _intervals(both: Array, on: Array, sizes: Array, patients: Sequence[str], iou: Array) -> Array:
    """Bootstrap intervals of the IoU over patients, ``(2, units, concepts)``; NaN for none."""
    cases = len(both)
    union = (on + sizes[:, None] - both).reshape(cases, -1)
    found = ratio_intervals(both.reshape(cases, -1), union, patients)
    ends = np.full((2, iou.size), np.nan) if found is None else found
    return np.where(np.isfinite(iou), ends.reshape(2, *iou.shape), np.nan)


def _percentile(null: Array) -> Array:
    """The 95th percentile over draws, ``(units, concepts)``."""
    known = np.isfinite(null).all(axis=-1)
    found = np.full(null.shape[:2], np.nan)
    if known.any():
        found[known] = np.quantile(null[known], 0.95, axis=-1)
    return found


def _adjusted(tables: Mapping[UnitGroup, _GroupScores]) -> dict[UnitGroup, Array]:
    """P values after Benjamini and Hochberg over all units of layers and all concepts."""
    adjusted = {group: np.full(table.p.shape, np.nan) for group, table in tables.items()}
    layers = [group for group in tables if group.origin == "layer"]
    values = benjamini_hochberg(
        np.concatenate([tables[group].p.ravel() for group in layers]).tolist() if layers else []
    )
    start = 0
    for group in layers:
        shape = tables[group].p.shape
        part = values[start : start + tables[group].p.size]
        adjusted[group], start = np.reshape(part, shape), start + len(part)
    return adjusted


def _bars(
    tables: Mapping[UnitGroup, _GroupScores], group: UnitGroup, settings: DissectionSettings
) -> Array:
    """What the lower end of the interval must exceed, ``(units, concepts)`` of a group."""
    bars = np.full(len(tables[group].concepts), settings.smallest_iou)
    for other, table in tables.items():
        if other.origin != "layer":
            bars = np.fmax(bars, _best(table.iou))
    return np.asarray(np.fmax(bars[None], tables[group].values["null"]))


def _best(values: Array) -> Array:
    """The highest value over units per concept, NaN where none is defined."""
    return np.asarray(np.fmax.reduce(values, axis=0))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
