"""Counts of one case: voxels of units and concepts at every threshold, and unrelated masks."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from voxplain.concepts.dissection.case_masks import CaseMasks, Combinations
from voxplain.concepts.dissection.exemplars import ExemplarCases
from voxplain.concepts.dissection.histograms import Counts, Thresholds, joint_histograms, reaching
from voxplain.concepts.dissection.nulls import DrawnMasks, NullCounts
from voxplain.concepts.dissection.units import UnitMaps

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


@dataclass(frozen=True, eq=False)
class CaseNull:
    """Unrelated masks for one held-out case.

    Attributes:
        voxels: Where they are compared.
        drawn: Masks per concept; None where the concept is not known.
        weight: Voxels of the case per voxel compared.
    """

    voxels: NDArray[np.int64]
    drawn: Sequence[DrawnMasks | None]
    weight: float

    def count(self, null: NullCounts, bins: NDArray[np.int16], chosen: NDArray[np.int64]) -> None:
        """Compares the units of a group with all draws.

        Args:
            null: Takes the counts.
            bins: Thresholds reached at the voxels, ``(units, voxels)``.
            chosen: Number of the threshold, ``(units, concepts)``.
        """
        for concept, drawn in enumerate(self.drawn):
            if drawn is not None:
                threshold = chosen[:, concept, None].astype(np.int16)
                null.add(concept, (bins > threshold) & (threshold >= 0), drawn, self.weight)


@dataclass(frozen=True, eq=False)
class CaseCounting:
    """Counts the units of one case, some of them beside others in threads.

    Attributes:
        masks: The concepts.
        parts: Their combinations.
        null: Unrelated masks of a held-out case.
        threads: Each unit is counted by one of them, so that their number changes nothing.
    """

    masks: CaseMasks
    parts: Sequence[Combinations]
    null: CaseNull | None
    threads: Executor

    def count(self, maps: UnitMaps, state: GroupState) -> None:
        """Counts the units of a group."""
        counts = state.selection if self.null is None else state.held_out
        counts.begin(self.masks.known)
        shape = state.chosen.shape
        both, on = np.zeros(shape), np.zeros(shape)
        voxels = None if self.null is None else self.null.voxels
        reached = np.zeros((shape[0], 0 if voxels is None else len(voxels)), dtype=np.int16)

        def work(rows: slice) -> None:
            values = maps.at(rows, self.masks.places)
            state.exemplars.add(rows, values, self.masks)
            bins = state.thresholds.bins(rows, values)
            inside, everywhere = joint_histograms(bins, self.parts, state.edges.shape[1])
            counts.add(rows, inside, everywhere, self.masks.known)
            if voxels is not None:
                chosen, known = state.chosen[rows], self.masks.known
                both[rows] = _at(reaching(inside), chosen) * known
                on[rows] = _at(reaching(everywhere)[:, None], chosen) * known
                reached[rows] = bins.take(voxels, axis=1)

        list(self.threads.map(work, maps.chunks(self.masks.voxels)))
        if self.null is not None:
            state.both.append(both)
            state.on.append(on)
            self.null.count(state.null, reached, state.chosen)


def _at(reached: Array, chosen: NDArray[np.int64]) -> Array:
    """Counts ``(units, concepts or 1, edges)`` at the chosen thresholds, 0 where there is none."""
    shape = (*chosen.shape, reached.shape[-1])
    found = np.take_along_axis(
        np.broadcast_to(reached, shape), np.maximum(chosen, 0)[..., None], axis=-1
    )[..., 0]
    return np.where(chosen >= 0, found, 0.0)
