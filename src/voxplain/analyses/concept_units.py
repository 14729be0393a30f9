"""The units of a network that stand for concepts, chosen on one half of the patients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from voxplain.analyses.analysis import AnalysisInputs
from voxplain.concepts.dissection.dissect import Dissection, dissect
from voxplain.concepts.dissection.settings import DissectionSettings
from voxplain.concepts.links import ConceptUnits
from voxplain.engine.cohort import Cohort
from voxplain.engine.interventions import UnitSet
from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError


@dataclass(frozen=True)
class ConceptUnitSettings:
    """How units are chosen.

    Attributes:
        layers: Paths of the layers.
        units: Units per concept and layer, at most.
        smallest_iou: What units must reach, on the cases that they are chosen on.
    """

    layers: tuple[str, ...]
    units: int
    smallest_iou: float


def split_cohort(inputs: AnalysisInputs, held_out: float) -> tuple[Cohort, Cohort]:
    """Cases to choose units on, and others to score; the same cases for a single patient."""
    selection, scored = inputs.cohort.split(held_out, inputs.seed)
    return selection, scored if len(scored) > 1 else selection


def units_of_concepts(
    inputs: AnalysisInputs, settings: ConceptUnitSettings, selection: Cohort, held_out: Cohort
) -> tuple[ConceptUnits, ...]:
    """The units that agree most with each concept in each layer, each unit for one concept alone.

    Args:
        inputs: Of the analysis.
        settings: How they are chosen.
        selection: The cases that they are chosen on.
        held_out: The cases that their scores are of.

    Raises:
        ConfigError: If no unit agrees with a concept.
    """
    asked = DissectionSettings(layers=settings.layers, exemplars=0, seed=inputs.seed)
    found = dissect(inputs.model, selection, inputs.concepts, settings=asked, held_out=held_out)
    nodes = tuple(node for layer in settings.layers for node in _of_layer(found, layer, settings))
    if not nodes:
        raise ConfigError(
            f"no unit of {', '.join(settings.layers)} agrees with a concept to an IoU of "
            f"{settings.smallest_iou}; other layers, or a smaller smallest_iou, may have some"
        )
    return nodes


def _of_layer(
    found: Dissection, layer: str, settings: ConceptUnitSettings
) -> Iterator[ConceptUnits]:
    units = [unit for unit in found.record.units if unit.layer == layer and unit.origin == "layer"]
    numbers, taken = {unit.name: unit.index for unit in units}, set[int]()
    for concept in found.record.concepts:
        pairs = [
            pair
            for pair in found.of(concept=concept.name, origin="layer")
            if pair.unit in numbers
            and numbers[pair.unit] not in taken
            and (pair.selection_iou or 0.0) >= settings.smallest_iou
        ]
        pairs.sort(key=lambda pair: -(pair.selection_iou or 0.0))
        if pairs:
            channels = tuple(numbers[pair.unit] for pair in pairs[: settings.units])
            taken.update(channels)
            name = f"{concept.name}, {layer}"
            yield ConceptUnits(name, Tap(layer), UnitSet(channels), pairs[0].iou)
