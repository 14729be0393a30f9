"""The passes over the cases: quantiles, then histograms, then held-out counts and nulls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxplain.concepts.bank.bank import ConceptBank
from voxplain.concepts.concept import Concept
from voxplain.concepts.dissection.agreement import Agreement, chosen_threshold
from voxplain.concepts.dissection.case_masks import (
    CaseMasks,
    Region,
    Remarks,
    case_masks,
    combinations,
    mask_of,
    region_of,
)
from voxplain.concepts.dissection.exemplars import ExemplarCases
from voxplain.concepts.dissection.histograms import Counts, Thresholds, joint_histograms, reaching
from voxplain.concepts.dissection.image_level import ImageActivations
from voxplain.concepts.dissection.nulls import NullCounts, UnrelatedMasks
from voxplain.concepts.dissection.quantiles import VoxelSample, shares_on
from voxplain.concepts.dissection.settings import DissectionSettings
from voxplain.concepts.dissection.units import UnitGroup, UnitMaps, UnitSource
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.errors import InputError

Array = NDArray[np.float64]


@dataclass
class GroupState:
    """What is known of the units of one group.

    Attributes:
        names: Of the units.
        thresholds: Of every unit.
        selection: Histograms of the cases to select on.
        held_out: The same of the held-out cases.
        chosen: Number of the threshold per unit and concept, -1 for none.
        null: Agreement with unrelated masks on held-out cases.
        exemplars: Of all cases.
        both: Voxels of unit and concept at the chosen threshold, per held-out case.
        on: Voxels of the unit at the chosen threshold, per held-out case.
    """

    names: tuple[str, ...]
    thresholds: Thresholds
    selection: Counts
    held_out: Counts
    chosen: NDArray[np.int64]
    null: NullCounts
    exemplars: ExemplarCases
    both: list[Array] = field(default_factory=list)
    on: list[Array] = field(default_factory=list)

    @property
    def edges(self) -> Tensor:
        """The thresholds, ``(units, edges)``."""
        return self.thresholds.edges


class Sweeps:
    """Goes over the cases and counts; memory does not grow with voxels or cases.

    What is kept of each case are two numbers per unit and concept at the chosen threshold, for
    intervals, and the pooled activations of the units.

    Args:
        sources: What gives units.
        bank: The concepts.
        settings: Of the dissection.
    """

    def __init__(
        self, sources: Sequence[UnitSource], bank: ConceptBank, settings: DissectionSettings
    ) -> None:
        self._sources, self._bank, self._settings = tuple(sources), bank, settings
        self._region: Concept | Region = settings.region
        if settings.region not in ("foreground", "image"):
            self._region = bank[settings.region]
        self.concepts = bank.masks
        self.groups: dict[UnitGroup, GroupState] = {}
        self.remarks = Remarks()
        self.images = ImageActivations()
        self.unrelated = UnrelatedMasks(settings.draws, settings.seed)
        self.sizes: list[Array] = []
        self.totals: list[Array] = []
        self.patients: list[str] = []

    def find_thresholds(self, cohort: Cohort) -> None:
        """Finds thresholds of every unit on some cases, as quantiles of its values."""
        sample = VoxelSample(self._settings.seed)
        names: dict[UnitGroup, tuple[str, ...]] = {}
        for case, inside in self._readable(cohort):
            masks = case_masks(case, (), inside, self.remarks)
            drawn = sample.draw(case.id, masks.voxels)
            for maps in self._maps(case):
                parts = [masks.select(part)[:, drawn] for _, part in self._chunks(maps, case)]
                if parts:
                    names[maps.group] = maps.names
                    sample.add(maps.group, torch.cat(parts))
        on = shares_on(self._settings.quantile)
        for group, units in names.items():
            self.groups[group] = self._fresh(units, sample.edges(group, on))

    def count_selection(self, cohort: Cohort) -> None:
        """Counts voxels on the same cases, and chooses a threshold per unit and concept."""
        for case, inside in self._readable(cohort):
            masks = self._begin(case, inside, held_out=False)
            self.unrelated.donate(case, masks)
            self._count(case, masks, lambda state: state.selection, None)
        settings = self._settings
        for state in self.groups.values():
            for number in range(len(self.concepts)):
                agreement = agreement_of(state.selection, number)
                found = chosen_threshold(agreement, settings.threshold, settings.quantile)
                state.chosen[:, number] = found

    def count_held_out(self, cohort: Cohort) -> None:
        """Counts voxels on other cases, at all thresholds and, with nulls, at the chosen ones."""
        for case, inside in self._readable(cohort):
            masks = self._begin(case, inside, held_out=True)
            self.sizes.append(masks.masks.sum(axis=1).astype(np.float64))
            self.totals.append(masks.known.astype(np.float64) * masks.voxels)
            self.patients.append(case.patient)
            self._count(case, masks, lambda state: state.held_out, self._null_of(case, masks))

    def _readable(self, cohort: Cohort) -> Iterator[tuple[CohortCase, Tensor]]:
        """The cases with their region; one whose region is empty is left out with a remark."""
        for case in cohort:
            try:
                inside = region_of(case, self._region)
            except InputError as error:
                self.remarks.append(f"{error}; the case is left out")
                continue
            yield case, inside

    def _maps(self, case: CohortCase) -> Iterator[UnitMaps]:
        for source in self._sources:
            yield from source.of(case, self.remarks)

    def _chunks(self, maps: UnitMaps, case: CohortCase) -> Iterator[tuple[slice, Tensor]]:
        return maps.chunks(case.image.data[0].numel())

    def _begin(self, case: CohortCase, inside: Tensor, held_out: bool) -> CaseMasks:
        holds = [mask_of(concept, case, self.remarks) for concept in self._bank.images]
        self.images.add_case(holds, case.patient, held_out)
        return case_masks(case, self.concepts, inside, self.remarks)

    def _count(
        self,
        case: CohortCase,
        masks: CaseMasks,
        into: Callable[[GroupState], Counts],
        null: _CaseNull | None,
    ) -> None:
        """Counts one case for every group of units."""
        parts = combinations(masks.masks)
        for maps in self._maps(case):
            if self._bank.images:
                self.images.add(maps.group, maps.names, maps.pooled)
            state = self.groups.get(maps.group)
            if state is None:
                continue
            state.exemplars.add_case(case.id, case.image.grid.shape)
            shape = state.chosen.shape
            both, on = np.zeros(shape), np.zeros(shape)
            for rows, placed in self._chunks(maps, case):
                values = masks.select(placed)
                state.exemplars.add(rows, values, masks)
                bins = state.thresholds.bins(rows, values)
                inside, everywhere = joint_histograms(bins, parts, state.edges.shape[1])
                into(state).add(rows, inside, everywhere, masks.known)
                if null is not None:
                    chosen = state.chosen[rows]
                    both[rows] = _at(reaching(inside), chosen) * masks.known
                    on[rows] = _at(reaching(everywhere)[:, None], chosen) * masks.known
                    null.count(state.null, rows, bins, chosen)
            if null is not None:
                state.both.append(both)
                state.on.append(on)
                null.count_sizes(state.null)

    def _null_of(self, case: CohortCase, masks: CaseMasks) -> _CaseNull:
        voxels = self.unrelated.voxels(case, masks)
        drawn = [
            self.unrelated.of(case, masks, number, voxels) if known else None
            for number, known in enumerate(masks.known)
        ]
        return _CaseNull(voxels, drawn, masks.voxels / len(voxels))

    def _fresh(self, names: tuple[str, ...], edges: Tensor) -> GroupState:
        units, concepts = len(names), len(self.concepts)
        return GroupState(
            names,
            Thresholds(edges),
            Counts.empty(units, concepts, edges.shape[1]),
            Counts.empty(units, concepts, edges.shape[1]),
            np.full((units, concepts), -1, dtype=np.int64),
            NullCounts(units, concepts, self._settings.draws),
            ExemplarCases(units, self._settings.exemplars),
        )


@dataclass(frozen=True, eq=False)
class _CaseNull:
    """Unrelated masks for one held-out case.

    Attributes:
        voxels: Where they are compared.
        drawn: Per concept ``(draws, voxels)``; None where the concept is not known.
        weight: Voxels of the case per voxel compared.
    """

    voxels: NDArray[np.int64]
    drawn: list[NDArray[np.bool_] | None]
    weight: float

    def count(
        self,
        null: NullCounts,
        rows: slice,
        bins: NDArray[np.int16],
        chosen: NDArray[np.int64],
    ) -> None:
        """Compares some units with all draws."""
        reached = bins[:, self.voxels]
        for concept, drawn in enumerate(self.drawn):
            if drawn is not None:
                threshold = chosen[:, concept, None]
                is_on = (reached > threshold) & (threshold >= 0)
                null.add(rows, concept, is_on, drawn, self.weight)

    def count_sizes(self, null: NullCounts) -> None:
        """Takes in the sizes of the masks, once per group."""
        for concept, drawn in enumerate(self.drawn):
            if drawn is not None:
                null.add_sizes(concept, drawn, self.weight)


def agreement_of(counts: Counts, concept: int) -> Agreement:
    """Agreement of every unit of a group with one concept at every threshold."""
    both, on = counts.reached(concept)
    size, total = counts.size(concept)
    return Agreement(both, on, size, total)


def _at(reached: Array, chosen: NDArray[np.int64]) -> Array:
    """Counts ``(units, concepts or 1, edges)`` at the chosen thresholds, 0 where there is none."""
    shape = (*chosen.shape, reached.shape[-1])
    found = np.take_along_axis(
        np.broadcast_to(reached, shape), np.maximum(chosen, 0)[..., None], axis=-1
    )[..., 0]
    return np.where(chosen >= 0, found, 0.0)
