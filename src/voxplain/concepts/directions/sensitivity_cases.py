"""What sensitivities read of every case: vectors of concepts, gradients, and who is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from voxplain.concepts.case_contexts import CaseContexts
from voxplain.concepts.case_reading import cells_inside, image_vector, mask_of
from voxplain.concepts.concept import Concept
from voxplain.concepts.directions.activation_vectors import (
    ActivationVectors,
    LayerMoments,
    PlacedConcept,
    image_concept_vectors,
)
from voxplain.concepts.directions.layer_gradients import layer_pass
from voxplain.concepts.places import RegionOfInterest, region_of, values_at
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.engine.observation import Observation, observe
from voxplain.engine.randomness import generator
from voxplain.engine.taps import Tap
from voxplain.errors import TargetError
from voxplain.targets import Target

VectorsByLayer = Mapping[str, Mapping[str, ActivationVectors | None]]
"""By the path of the layer and the name of the concept; None where a concept has no direction."""


def vectors_by_layer(
    contexts: CaseContexts,
    cohort: Cohort,
    concepts: Sequence[Concept],
    layers: Sequence[str],
    moves: int,
    cells_per_case: int,
    region: RegionOfInterest,
    ridge: float,
    seed: int,
) -> VectorsByLayer:
    """Directions of concepts and of random concepts, from one pass over the selection cases."""
    sums: dict[str, _LayerSums] = {}
    for case in cohort:
        context = contexts.open(case)
        taps = context.layers.taps(tuple(layers))
        seen = observe(context, taps)
        masks = {concept.name: mask_of(concept, case) for concept in concepts}
        for tap in taps:
            of_layer = sums.setdefault(tap.path, _LayerSums(concepts, moves, cells_per_case, seed))
            of_layer.add(case, seen, tap, masks, region)
    return {layer: of_layer.vectors(ridge) for layer, of_layer in sums.items()}


class _LayerSums:
    """What directions of one layer are made of, summed up over cases."""

    def __init__(
        self, concepts: Sequence[Concept], moves: int, cells_per_case: int, seed: int
    ) -> None:
        self._concepts, self._moves = concepts, moves
        self._cells_per_case, self._seed = cells_per_case, seed
        self._cells, self._images = LayerMoments(), LayerMoments()
        self._placed = {
            concept.name: PlacedConcept(moves, (seed, "moved", concept.name))
            for concept in concepts
        }
        self._vectors: dict[str, Tensor] = {}
        self._holds: dict[str, dict[str, bool]] = {concept.name: {} for concept in concepts}

    def add(
        self,
        case: CohortCase,
        seen: Observation,
        tap: Tap,
        masks: Mapping[str, Tensor | None],
        region: RegionOfInterest,
    ) -> None:
        """Takes in a case."""
        vector = image_vector(seen, tap, case, region)
        self._images.add(vector[None])
        self._vectors[case.id] = vector
        for name, mask in masks.items():
            if mask is not None:
                self._holds[name][case.id] = bool(mask.any())
        if not seen.layers.placed_geometry(tap).spatial:
            self._placed.clear()
            return
        placed = PlacedValues.of(seen, tap, case, region)
        drawn = placed.some(self._cells_per_case, (self._seed, "cells", case.id))
        self._cells.add(drawn)
        for concept in self._concepts:
            mask = masks[concept.name]
            if concept.kind == "mask" and mask is not None:
                self._placed[concept.name].add(
                    case.id, placed.values, placed.where(mask), placed.inside, drawn.mean(dim=0)
                )

    def vectors(self, ridge: float) -> dict[str, ActivationVectors | None]:
        """By the name of the concept."""
        return {concept.name: self._of(concept, ridge) for concept in self._concepts}

    def _of(self, concept: Concept, ridge: float) -> ActivationVectors | None:
        if concept.kind == "mask" and concept.name in self._placed:
            return self._placed[concept.name].vectors(self._cells, ridge)
        known = self._holds[concept.name]
        cases = [case for case in sorted(self._vectors) if case in known]
        if not cases:
            return None
        vectors = torch.stack([self._vectors[case] for case in cases])
        holds = torch.tensor([known[case] for case in cases])
        key = (self._seed, "dealt", concept.name)
        return image_concept_vectors(self._images, ridge, vectors, holds, self._moves, key)


@dataclass(frozen=True, eq=False)
class PlacedValues:
    """Activations of one image at a layer with places.

    Attributes:
        values: ``(K, windows, *cells)``; one window where there are none.
        inside: Cells that count, ``(windows, *cells)`` of bool.
        numbers: Of the cells that count, in the order of memory.
        points: Where they lie, ``(N, rank)`` in voxels.
    """

    values: Tensor
    inside: Tensor
    numbers: Tensor
    points: Tensor

    @classmethod
    def of(
        cls, seen: Observation, tap: Tap, case: CohortCase, region: RegionOfInterest
    ) -> PlacedValues:
        """Of a layer in a region."""
        numbers, points = cells_inside(seen, tap, case, region_of(case, region))
        values = seen[tap].float().cpu()
        if seen.layers.layout is None:
            values = values[:, None]
        inside = torch.zeros(values[0].numel(), dtype=torch.bool)
        inside[numbers] = True
        return cls(values, inside.view(values.shape[1:]), numbers, points)

    def some(self, count: int, key: tuple[object, ...]) -> Tensor:
        """Values ``(N, K)`` of some of the cells."""
        picks = torch.randperm(len(self.numbers), generator=generator(*key))[:count]
        return self.values.flatten(1)[:, self.numbers[picks].sort().values].T

    def where(self, mask: Tensor) -> Tensor:
        """Cells in a mask ``(*spatial)``, ``(windows, *cells)`` of bool."""
        found = torch.zeros(self.inside.numel(), dtype=torch.bool)
        found[self.numbers] = values_at(mask[None], self.points)[:, 0] >= 0.5
        return found.view(self.inside.shape)


@dataclass(frozen=True, eq=False)
class CaseEvidence:
    """What one held-out case says.

    Attributes:
        patient: Whose image it is.
        gradients: dS/dA ``(K,)`` by the path of the layer, summed over all cells.
        counts: Hits, positives, correct rejections and negatives of the classifiers, ``(4,)``, by
            concept and layer.
    """

    patient: str
    gradients: dict[str, Tensor]
    counts: dict[tuple[str, str], Tensor]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What all held-out cases say.

    Attributes:
        cases: Those with a score, by their ids.
        without_score: Why the target could not be bound, by the id of the case.
    """

    cases: list[CaseEvidence] = field(default_factory=list)
    without_score: dict[str, str] = field(default_factory=dict)


def evidence(
    contexts: CaseContexts,
    cohort: Cohort,
    concepts: Sequence[Concept],
    layers: tuple[str, ...],
    target: Target,
    vectors: VectorsByLayer,
    region: RegionOfInterest,
) -> Evidence:
    """Gradients and classifications of held-out cases, in one pass of each."""
    found, without_score = dict[str, CaseEvidence](), dict[str, str]()
    for case in cohort:
        context = contexts.open(case)
        try:
            of_layers = layer_pass(context, layers, target)
        except TargetError as error:
            without_score[case.id] = str(error)
            continue
        gradients = {
            path: gradient.flatten(1).double().sum(dim=1)
            for path, gradient in of_layers.gradients.items()
        }
        taps = {Tap(path): value for path, value in of_layers.values.items()}
        seen = Observation(context.layers, taps, torch.empty(0))
        counts = _counts(case, seen, concepts, vectors, region)
        found[case.id] = CaseEvidence(case.patient, gradients, counts)
    return Evidence([found[case] for case in sorted(found)], without_score)


def _counts(
    case: CohortCase,
    seen: Observation,
    concepts: Sequence[Concept],
    vectors: VectorsByLayer,
    region: RegionOfInterest,
) -> dict[tuple[str, str], Tensor]:
    counts: dict[tuple[str, str], Tensor] = {}
    for tap in seen.values:
        is_spatial = seen.layers.placed_geometry(tap).spatial
        placed = PlacedValues.of(seen, tap, case, region) if is_spatial else None
        for concept in concepts:
            own, mask = vectors[tap.path][concept.name], mask_of(concept, case)
            if own is None or mask is None:
                continue
            if concept.kind == "mask" and placed is not None:
                values, truth = placed.values[:, placed.inside].T, placed.where(mask)[placed.inside]
            else:
                values, truth = image_vector(seen, tap, case, region)[None], mask.any()[None]
            above = values.double() @ own.vectors[0] > own.threshold
            counts[concept.name, tap.path] = _of(above, truth)
    return counts


def _of(above: Tensor, truth: Tensor) -> Tensor:
    hits, rejections = (above & truth).sum(), (~above & ~truth).sum()
    return torch.stack([hits, truth.sum(), rejections, (~truth).sum()]).double()
