"""What the units of a network detect: dissection against a bank of concepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from voxplain.concepts.bank.bank import ConceptBank, Entry
from voxplain.concepts.dissection.agreement import Agreement
from voxplain.concepts.dissection.image_level import image_pairs
from voxplain.concepts.dissection.pairs import score_pairs
from voxplain.concepts.dissection.recorded import concepts_recorded, units_recorded
from voxplain.concepts.dissection.settings import DissectionSettings
from voxplain.concepts.dissection.sweeps import Sweeps, agreement_of
from voxplain.concepts.dissection.units import (
    LayerUnits,
    ModalityUnits,
    Origin,
    UnitGroup,
    UnitReading,
)
from voxplain.engine.cohort import Cohort
from voxplain.errors import ConfigError, InputError, nearest
from voxplain.models.model import Model
from voxplain.records.dissection import (
    DissectionRecord,
    PairDissected,
    write_pairs,
)
from voxplain.statistics import FEWEST


@dataclass(frozen=True, eq=False)
class UnitValues:
    """How the activations of the units of a group are distributed on the selection cases.

    Attributes:
        edges: Activations, ``(units, edges)``, ascending.
        counts: Voxels below the first, between two of them and from the last on,
            ``(units, edges + 1)``.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Dissection:
    """What the units of a network detect.

    Attributes:
        record: All scores, as they are written to a run folder.
        curves: Agreement of the units of a group with every concept at every threshold, on
            held-out cases: by the group and the name of the concept, ``(units, thresholds)``.
        values: The activations of the units of a group.
    """

    record: DissectionRecord
    curves: Mapping[tuple[UnitGroup, str], Agreement]
    values: Mapping[UnitGroup, UnitValues]

    def of(
        self, unit: str | None = None, concept: str | None = None, origin: Origin | None = None
    ) -> tuple[PairDissected, ...]:
        """The pairs that fit all that is given."""
        wanted = {"unit": unit, "concept": concept, "origin": origin}
        asked = {name: value for name, value in wanted.items() if value is not None}
        return tuple(
            pair
            for pair in self.record.pairs
            if all(getattr(pair, name) == value for name, value in asked.items())
        )

    def best(self, concept: str, origin: Origin = "layer") -> PairDissected | None:
        """The unit that agrees most with a concept on the selection cases.

        Args:
            concept: A part of images.
            origin: Among which units.

        Raises:
            ConfigError: With the nearest names, if there is no such concept.
        """
        names = [each.name for each in self.record.concepts if each.kind == "mask"]
        if concept not in names:
            raise ConfigError(f"no concept {concept!r} was dissected; {nearest(concept, names)}")
        found = [pair for pair in self.of(concept=concept, origin=origin) if pair.iou is not None]
        return max(found, key=lambda pair: pair.selection_iou or 0.0, default=None)

    @property
    def detectors(self) -> tuple[PairDissected, ...]:
        """Units that are detectors of a concept, the best first."""
        found = [pair for pair in self.record.pairs if pair.detector]
        return tuple(sorted(found, key=lambda pair: -(pair.iou or 0.0)))

    def to_json(self) -> str:
        """The record as JSON."""
        return self.record.model_dump_json(indent=1)

    def to_records(self) -> list[dict[str, Any]]:
        """One mapping per unit and concept."""
        return [pair.model_dump() for pair in self.record.pairs]

    def export(self, path: Path) -> None:
        """Writes the table of units and concepts for other programs: ``.csv``, or else Parquet."""
        write_pairs(path, self.record.pairs)


def dissect(
    model: Model | nn.Module,
    cohort: Cohort,
    bank: ConceptBank | Sequence[Entry],
    layers: Sequence[str] = (),
    settings: DissectionSettings | None = None,
    *,
    held_out: Cohort | None = None,
    units: Mapping[str, UnitReading] | None = None,
    random_model: Model | nn.Module | None = None,
    random_units: Mapping[str, UnitReading] | None = None,
) -> Dissection:
    """Compares units of a network with concepts, threshold by threshold, over many cases.

    Maps of units are placed on the image by where the cells of their layer lie, then thresholded.
    Thresholds are chosen on one part of the patients and scores are of the other part, with
    bootstrap intervals over patients. Every modality, bright and dark, is scored as if it were a
    unit; so are the units of a network with random weights if one is given. Cases are read one at
    a time: twice to select and once to score, with one forward each. The network needs no
    gradients and is not changed.

    Papers: Bau et al., Network Dissection, 2017; and see :class:`DissectionSettings`.

    Args:
        model: A classifier or a segmentation network, whole or in windows.
        cohort: The cases.
        bank: Concepts, or the entries of a bank.
        layers: Paths; all convolutional stages, after the activation, if empty here and in
            ``settings``.
        settings: How thresholds, regions and nulls are chosen.
        held_out: Cases to score; all of ``cohort`` is then for selection. The patients of
            ``cohort`` are split if None.
        units: Channels of some layers instead of all of them, or directions in the space of their
            channels: :class:`UnitSet`, or :class:`Directions` that were found. They have to be
            found on ``cohort`` alone, with ``held_out`` given.
        random_model: The network with random weights.
        random_units: The same of the network with random weights, such as directions that were
            found there in the same way; equal to ``units`` if None.

    Raises:
        ConfigError: If the bank is empty, or the region of interest is no concept of it.
        ModelError: With the nearest names, if a layer does not exist.
        InputError: If no case can be used.
    """
    chosen = settings or DissectionSettings()
    concepts = bank if isinstance(bank, ConceptBank) else ConceptBank.of(bank)
    if not len(concepts):
        raise ConfigError("the bank holds no concept; give it labels, files or intensities")
    network, paths = Model.of(model), tuple(layers) or chosen.layers
    sources = [LayerUnits(network, paths, units), ModalityUnits()]
    if random_model is not None:
        others = units if random_units is None else random_units
        sources.insert(1, LayerUnits(Model.of(random_model), paths, others, "random"))
    selection, scored = _split(cohort, held_out, chosen)
    sweeps = Sweeps(sources, concepts, chosen)
    remarks = _remarks_on_cases(selection, scored)
    scored = scored if len(scored) else selection
    sweeps.find_thresholds(selection)
    sweeps.count_selection(selection)
    sweeps.count_held_out(scored)
    if not sweeps.totals:
        raise InputError("no case of the cohort has a region of interest; choose another region")
    record = DissectionRecord(
        model=network.name,
        threshold=chosen.threshold,
        quantile=chosen.quantile,
        region=chosen.region,
        smallest_iou=chosen.smallest_iou,
        selection=selection.ids,
        held_out=scored.ids,
        patients=len({*scored.patients}),
        concepts=concepts_recorded(sweeps, concepts),
        units=units_recorded(sweeps),
        pairs=tuple(score_pairs(sweeps, chosen)),
        images=tuple(image_pairs(sweeps.images, [each.name for each in concepts.images])),
        remarks=(*remarks, *sweeps.remarks.sentences),
    )
    return Dissection(record, _curves(sweeps), _values(sweeps))


def _split(
    cohort: Cohort, held_out: Cohort | None, settings: DissectionSettings
) -> tuple[Cohort, Cohort]:
    if not len(cohort):
        raise InputError("the cohort holds no case")
    if held_out is not None:
        return cohort, held_out
    return cohort.split(settings.held_out, settings.seed)


def _remarks_on_cases(selection: Cohort, scored: Cohort) -> list[str]:
    """What the number of patients does not allow."""
    remarks = []
    shared = {*selection.patients} & {*scored.patients}
    if shared:
        remarks.append(
            f"{len(shared)} patients are among the cases that thresholds were chosen on and among "
            "those that are scored: the scores are too high"
        )
    if not len(scored):
        remarks.append(
            "there is one patient only: scores are of the cases that thresholds were chosen on and "
            "are too high, no interval is given, and no unit is called a detector"
        )
    count = len({*scored.patients})
    if 0 < count < FEWEST:
        remarks.append(
            f"there are {count} held-out patients, and intervals need {FEWEST}: no interval is "
            "given, and no unit is called a detector"
        )
    return remarks


def _curves(sweeps: Sweeps) -> dict[tuple[UnitGroup, str], Agreement]:
    return {
        (group, concept.name): agreement_of(state.held_out, number)
        for group, state in sweeps.groups.items()
        for number, concept in enumerate(sweeps.concepts)
    }


def _values(sweeps: Sweeps) -> dict[UnitGroup, UnitValues]:
    return {
        group: UnitValues(
            state.edges.double().numpy(),
            np.asarray(sum(state.selection.everywhere.values(), np.zeros(1))),
        )
        for group, state in sweeps.groups.items()
    }
