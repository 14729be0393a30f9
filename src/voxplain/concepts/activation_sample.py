"""Activations sampled over the cases of a cohort, with the values of concepts at their places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from voxplain.concepts.case_contexts import CaseContexts
from voxplain.concepts.case_reading import activations_at, cells_inside, image_vector, mask_of
from voxplain.concepts.concept import Concept
from voxplain.concepts.places import RegionOfInterest, image_foreground, region_of, values_at
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.engine.observation import Observation, observe
from voxplain.engine.randomness import generator
from voxplain.engine.taps import Tap
from voxplain.errors import InputError
from voxplain.models.model import Model

Places = Literal["cells", "voxels", "images"]
"""Cells of the layer with their own values; voxels of the image, to which activations are
interpolated from where the cells lie; or whole images, with the mean over their cells."""


@dataclass(frozen=True, eq=False)
class ActivationSample:
    """Vectors in the space of the channels of one layer, each at a place in an image.

    Attributes:
        layer: Path of the layer.
        values: ``(N, K)`` in float32.
        concepts: Values of the concepts at the same places, ``(N, concepts)`` in [0, 1]; NaN where
            a concept is not known for the case.
        weights: ``(N,)`` the share of its case that a vector stands for; 1 in sum over a case.
        owners: ``(N,)`` the number of the case of each vector.
        cases: Ids of the cases, sorted.
        patients: The patient of every case.
        names: Of the concepts.
    """

    layer: str
    values: Tensor
    concepts: Tensor
    weights: Tensor
    owners: Tensor
    cases: tuple[str, ...]
    patients: tuple[str, ...]
    names: tuple[str, ...] = ()

    def rows(self, chosen: Tensor) -> ActivationSample:
        """The same with some of the vectors, by their numbers or a mask."""
        parts = (self.values, self.concepts, self.weights, self.owners)
        values, concepts, weights, owners = (part[chosen] for part in parts)
        return replace(self, values=values, concepts=concepts, weights=weights, owners=owners)

    def top_cases(self, strength: Tensor, count: int) -> tuple[str, ...]:
        """Ids of the cases in which a reading ``(N,)`` is largest on average, strongest first."""
        sums = torch.zeros(len(self.cases)).index_add(0, self.owners, strength * self.weights)
        order = sums.argsort(descending=True, stable=True)[:count]
        return tuple(self.cases[int(number)] for number in order)

    def rows_by_patient(self) -> dict[str, Tensor]:
        """The numbers of the vectors of each patient."""
        found: dict[str, Tensor] = {}
        for name in dict.fromkeys(self.patients):
            own = [number for number, patient in enumerate(self.patients) if patient == name]
            found[name] = torch.isin(self.owners, torch.tensor(own)).nonzero()[:, 0]
        return found


def sample_activations(
    model: Model | nn.Module | CaseContexts,
    cohort: Cohort,
    layers: Sequence[str],
    concepts: Sequence[Concept] = (),
    *,
    per_case: int = 1024,
    places: Places = "cells",
    region: RegionOfInterest = image_foreground,
    seed: int = 0,
) -> dict[str, ActivationSample]:
    """Vectors of some layers at random places of every case, in memory for one case at a time.

    Every case has the same number of vectors, as far as it has places. Places inside and outside
    of concepts are drawn equally often (each combination of concepts is a stratum), and weights
    say how many places a vector stands for, so that weighted means are those over all places.
    A layer without places, such as one of a head, has one vector per image, and a mask then counts
    as present or absent. The draws depend on the seed and the id of the case alone.

    Args:
        model: A network, or a model; networks with windows are sampled in all windows.
        cohort: The cases.
        layers: Paths of layers; none is the last feature layer.
        concepts: Known at the places as values in [0, 1].
        per_case: Largest number of vectors of a case and layer.
        places: Cells of the layer, voxels of the image, or whole images.
        region: The voxels that count; cells count where they lie in them.
        seed: Of the draws.

    Raises:
        InputError: If a concept lies on another grid than the image, or there is no case.
        ModelError: If a layer does not exist, or where its cells lie cannot be derived.
    """
    found: dict[str, list[_CaseVectors]] = {}
    sampler = _PlaceSampler(tuple(concepts), per_case, places, region, seed)
    contexts = model if isinstance(model, CaseContexts) else CaseContexts(model, seed)
    for case in cohort:
        context = contexts.open(case)
        taps = context.layers.taps(tuple(layers))
        seen = observe(context, taps)
        for tap in taps:
            found.setdefault(tap.path, []).append(sampler.vectors(case, seen, tap))
    if not found:
        raise InputError("the cohort has no case; activations are sampled from one at least")
    names = tuple(concept.name for concept in concepts)
    return {layer: _joined(layer, parts, names) for layer, parts in found.items()}


@dataclass(frozen=True, eq=False)
class _CaseVectors:
    case: str
    patient: str
    values: Tensor
    concepts: Tensor
    weights: Tensor


def _joined(layer: str, parts: list[_CaseVectors], names: tuple[str, ...]) -> ActivationSample:
    """The vectors of all cases, in the order of their ids."""
    parts = sorted(parts, key=lambda part: part.case)
    owners = [torch.full((len(part.values),), number) for number, part in enumerate(parts)]
    return ActivationSample(
        layer,
        torch.cat([part.values for part in parts]),
        torch.cat([part.concepts for part in parts]),
        torch.cat([part.weights for part in parts]),
        torch.cat(owners),
        tuple(part.case for part in parts),
        tuple(part.patient for part in parts),
        names,
    )


@dataclass(frozen=True)
class _PlaceSampler:
    """Draws places of one case and layer."""

    concepts: tuple[Concept, ...]
    per_case: int
    places: Places
    region: RegionOfInterest
    seed: int

    def vectors(self, case: CohortCase, seen: Observation, tap: Tap) -> _CaseVectors:
        masks = [mask_of(concept, case) for concept in self.concepts]
        if self.places == "images" or not seen.layers.placed_geometry(tap).spatial:
            values = image_vector(seen, tap, case, self.region)[None]
            labels = torch.tensor([[_presence(mask) for mask in masks]])
            return self._of(case, values, labels, torch.ones(1))
        inside = region_of(case, self.region)
        if self.places == "voxels":
            labels, numbers, weights = self._voxels(case, masks, inside)
            points = torch.stack(torch.unravel_index(numbers, inside.shape), dim=1).double()
            return self._of(case, activations_at(seen, tap, points), labels, weights)
        labels, numbers, weights = self._cells(case, seen, tap, masks, inside)
        values = seen[tap].flatten(1)[:, numbers.to(seen[tap].device)].T
        return self._of(case, values, labels, weights)

    def _voxels(
        self, case: CohortCase, masks: Sequence[Tensor | None], inside: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        numbers = inside.flatten().nonzero()[:, 0]
        columns = [_everywhere(mask, inside.shape).flatten()[numbers] for mask in masks]
        return self._drawn(case, _columns(columns, len(numbers)), numbers)

    def _cells(
        self,
        case: CohortCase,
        seen: Observation,
        tap: Tap,
        masks: Sequence[Tensor | None],
        inside: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        numbers, points = cells_inside(seen, tap, case, inside)
        columns = [values_at(_everywhere(mask, inside.shape)[None], points)[:, 0] for mask in masks]
        return self._drawn(case, _columns(columns, len(numbers)), numbers)

    def _drawn(
        self, case: CohortCase, labels: Tensor, numbers: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Labels, numbers and weights of some of the places."""
        chosen, weights = _stratified(labels >= 0.5, self.per_case, (self.seed, "places", case.id))
        return labels[chosen], numbers[chosen], weights

    def _of(
        self, case: CohortCase, values: Tensor, labels: Tensor, weights: Tensor
    ) -> _CaseVectors:
        values = values.float().cpu().contiguous()
        return _CaseVectors(case.id, case.patient, values, labels.float(), weights)


def _presence(mask: Tensor | None) -> float:
    return float("nan") if mask is None else float(bool(mask.any()))


def _everywhere(mask: Tensor | None, shape: Sequence[int]) -> Tensor:
    return torch.full((), float("nan")).expand(*shape) if mask is None else mask.expand(*shape)


def _columns(columns: Sequence[Tensor], count: int) -> Tensor:
    return torch.stack(list(columns), dim=1) if columns else torch.zeros(count, 0)


def _stratified(labels: Tensor, count: int, key: tuple[object, ...]) -> tuple[Tensor, Tensor]:
    """Numbers and weights of draws that are shared out over all combinations of labels."""
    codes = (labels.long() << torch.arange(labels.shape[1])).sum(dim=1)
    strata = [(codes == code).nonzero()[:, 0] for code in torch.unique(codes)]
    source = generator(*key)
    chosen, weights = [], []
    for stratum, share in zip(strata, _shares([len(each) for each in strata], count), strict=True):
        chosen.append(stratum[torch.randperm(len(stratum), generator=source)[:share]])
        weights.append(torch.full((share,), len(stratum) / share / len(labels)))
    return torch.cat(chosen), torch.cat(weights)


def _shares(sizes: list[int], count: int) -> Iterator[int]:
    """How many are drawn of each stratum: equally many, and what a small one leaves to others."""
    shares, left = [0] * len(sizes), count
    order = sorted(range(len(sizes)), key=lambda number: sizes[number])
    for rank, number in enumerate(order):
        shares[number] = max(1, min(sizes[number], left // (len(order) - rank)))
        left -= shares[number]
    return iter(shares)
