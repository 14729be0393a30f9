"""The passes over the cases: quantiles, then histograms, then held-out counts and nulls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

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
    compared_region,
    known_mask,
)
from voxplain.concepts.dissection.counting import CaseCounting, CaseNull, GroupState
from voxplain.concepts.dissection.exemplars import ExemplarCases
from voxplain.concepts.dissection.histograms import Counts, Thresholds
from voxplain.concepts.dissection.image_level import ImageActivations
from voxplain.concepts.dissection.nulls import DrawnMasks, NullCounts, UnrelatedMasks
from voxplain.concepts.dissection.quantiles import VoxelSample, shares_on
from voxplain.concepts.dissection.settings import DissectionSettings
from voxplain.concepts.dissection.units import UnitGroup, UnitMaps, UnitSource
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.errors import InputError

Array = NDArray[np.float64]


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
            voxels = masks.places[sample.draw(case.id, masks.voxels).numpy()]
            for maps in self._maps(case):
                if maps.placed is not None:
                    names[maps.group] = maps.names
                    sample.add(maps.group, torch.from_numpy(maps.at(slice(None), voxels)))
        on = shares_on(self._settings.quantile)
        for group, units in names.items():
            self.groups[group] = self._fresh(units, sample.edges(group, on))

    def count_selection(self, cohort: Cohort) -> None:
        """Counts voxels on the same cases, and chooses a threshold per unit and concept."""
        for case, inside in self._readable(cohort):
            masks = self._begin(case, inside, held_out=False)
            self.unrelated.donate(case, masks)
            self._count(case, masks, None)
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
            self._count(case, masks, self._null_of(case, masks, len(cohort)))

    def _readable(self, cohort: Cohort) -> Iterator[tuple[CohortCase, Tensor]]:
        """The cases with their region; one whose region is empty is left out with a remark."""
        for case in cohort:
            try:
                inside = compared_region(case, self._region)
            except InputError as error:
                self.remarks.append(f"{error}; the case is left out")
                continue
            yield case, inside

    def _maps(self, case: CohortCase) -> Iterator[UnitMaps]:
        for source in self._sources:
            yield from source.of(case, self.remarks)

    def _begin(self, case: CohortCase, inside: Tensor, held_out: bool) -> CaseMasks:
        holds = [known_mask(concept, case, self.remarks) for concept in self._bank.images]
        self.images.add_case(holds, case.patient, held_out)
        return case_masks(case, self.concepts, inside, self.remarks)

    def _count(self, case: CohortCase, masks: CaseMasks, null: CaseNull | None) -> None:
        """Counts one case for every group of units."""
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            counting = CaseCounting(masks, combinations(masks.masks), null, threads)
            for maps in self._maps(case):
                if self._bank.images:
                    self.images.add(maps.group, maps.names, maps.pooled)
                state = self.groups.get(maps.group)
                if state is not None:
                    state.exemplars.add_case(case.id, case.image.grid.shape)
                    counting.count(maps, state)

    def _null_of(self, case: CohortCase, masks: CaseMasks, cases: int) -> CaseNull:
        voxels = self.unrelated.voxels(case, masks, cases)
        drawn = [
            DrawnMasks.of(self.unrelated.of(case, masks, number, voxels)) if known else None
            for number, known in enumerate(masks.known)
        ]
        return CaseNull(voxels, drawn, masks.voxels / len(voxels))

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


def agreement_of(counts: Counts, concept: int) -> Agreement:
    """Agreement of every unit of a group with one concept at every threshold."""
    both, on = counts.reached(concept)
    size, total = counts.size(concept)
    return Agreement(both, on, size, total)
