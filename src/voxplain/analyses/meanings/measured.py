"""What found directions stand for: dissected like units, and the score along them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from voxplain.analyses.analysis import AnalysisInputs
from voxplain.concepts.directions import (
    Directions,
    FoundDirectionRecord,
    SensitivityRecord,
    direction_sensitivity,
)
from voxplain.concepts.dissection.dissect import Dissection, dissect
from voxplain.concepts.dissection.settings import DissectionSettings
from voxplain.engine.cohort import Cohort
from voxplain.errors import VoxplainError
from voxplain.models.model import Model
from voxplain.records.atomic import atomic_write
from voxplain.records.dissection import PairDissected
from voxplain.targets import Target


@dataclass(frozen=True, eq=False)
class FoundDirections:
    """Directions of one layer, and the cases on which they were found and are judged.

    Attributes:
        directions: Of the network.
        selection: The cases that they were found on, and thresholds are chosen on.
        judged: Cases of other patients.
        control: A network with random weights, and the directions that were found there in the
            same way; None without.
    """

    directions: Directions
    selection: Cohort
    judged: Cohort
    control: tuple[Model, Directions] | None = None


@dataclass(frozen=True, eq=False)
class DirectionMeanings:
    """What directions stand for.

    Attributes:
        records: One per direction.
        dissection: Of the directions; None without concepts.
        units: Of the channels of the same layer, on the same cases; None without concepts.
        remarks: Why something was not measured.
    """

    records: tuple[FoundDirectionRecord, ...]
    dissection: Dissection | None
    units: Dissection | None
    remarks: tuple[str, ...]


def direction_meanings(
    inputs: AnalysisInputs,
    found: FoundDirections,
    target: Target | None,
    random_directions: int,
    exemplars: int,
) -> DirectionMeanings:
    """Dissects directions against the concepts of a study, and tests the score along them.

    Thresholds, intervals, baselines and the rule for detectors are those of units.

    Args:
        inputs: Of the analysis; ``dissection.json`` and ``sensitivity.json`` go into its folder.
        found: The directions.
        target: Whose score is asked about; None for none.
        random_directions: How many random directions each is compared with.
        exemplars: Cases shown per direction at both ends.
    """
    remarks: list[str] = []
    dissection = units = None
    if not len(found.judged):
        remarks.append("there is one patient only, so what directions stand for is not judged")
        return DirectionMeanings((), None, None, tuple(remarks))
    if len(inputs.concepts):
        dissection, units = _dissected(inputs, found, exemplars)
        atomic_write(inputs.folder / "dissection.json", dissection.to_json())
        remarks += dissection.record.remarks
    scores: dict[str, SensitivityRecord] = {}
    if target is not None:
        try:
            tested = direction_sensitivity(
                inputs.model,
                found.selection,
                found.judged,
                found.directions,
                target,
                random_directions=random_directions,
                seed=inputs.seed,
            )
        except VoxplainError as error:
            remarks.append(f"the score along directions was not measured: {error}")
        else:
            atomic_write(inputs.folder / "sensitivity.json", tested.model_dump_json(indent=1))
            scores = {row.concept: row for row in tested.rows}
    records = tuple(
        _record(name, found.directions.layer, dissection, units, scores.get(name))
        for name in found.directions.names
    )
    return DirectionMeanings(records, dissection, units, tuple(remarks))


def _dissected(
    inputs: AnalysisInputs, found: FoundDirections, exemplars: int
) -> tuple[Dissection, Dissection]:
    """The directions, and the channels of their layer, on the same cases."""
    layer, control = found.directions.layer, found.control
    settings = DissectionSettings(layers=(layer,), exemplars=exemplars, seed=inputs.seed)
    together = dissect(
        inputs.model,
        found.selection,
        inputs.concepts,
        settings=settings,
        held_out=found.judged,
        units={layer: found.directions},
        random_model=None if control is None else control[0],
        random_units=None if control is None else {layer: control[1]},
    )
    units = dissect(
        inputs.model, found.selection, inputs.concepts, settings=settings, held_out=found.judged
    )
    return together, units


def _record(
    name: str,
    layer: str,
    dissection: Dissection | None,
    units: Dissection | None,
    score: SensitivityRecord | None,
) -> FoundDirectionRecord:
    facts: dict[str, object] = {"name": name}
    if score is not None:
        shown = ("share_positive", "mean", "p_share", "p_mean", "q_share", "q_mean")
        facts |= {each: getattr(score, each) for each in shown}
        facts["remark"] = score.reason
    pair = None if dissection is None else own_pair(dissection, f"{layer}/{name}")
    if pair is not None and units is not None:
        unit = units.best(pair.concept)
        facts |= {
            "concept": pair.concept,
            "iou": math.nan if pair.iou is None else pair.iou,
            "interval": pair.interval,
            "detector": pair.detector,
        }
        if unit is not None:
            facts |= {"unit": unit.unit, "unit_iou": math.nan if unit.iou is None else unit.iou}
    return FoundDirectionRecord.model_validate(facts)


def own_pair(dissection: Dissection, unit: str) -> PairDissected | None:
    """The concept that a direction agrees with most on the selection cases."""
    pairs = [pair for pair in dissection.of(unit=unit, origin="layer") if pair.iou is not None]
    return max(pairs, key=lambda pair: pair.selection_iou or 0.0, default=None)
