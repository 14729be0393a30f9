"""Components of a layer that are found without concepts, as many as are found again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from voxplain.concepts.activation_sample import ActivationSample, sample_activations
from voxplain.concepts.concept import Concept
from voxplain.concepts.directions.direction_records import FoundDirectionRecord
from voxplain.concepts.directions.directions import Directions
from voxplain.concepts.discovery.groups import dead_units, group_candidates
from voxplain.concepts.discovery.parts import Candidate, part_candidates
from voxplain.concepts.finding import Finding
from voxplain.concepts.places import RegionOfInterest, image_foreground
from voxplain.concepts.stability import (
    FEWEST_PATIENTS,
    CandidateRecord,
    clearest_stable,
    largest_stable,
)
from voxplain.engine.cohort import Cohort
from voxplain.engine.interventions import UnitSet
from voxplain.errors import ConfigError, InputError
from voxplain.models.model import Model

DiscoveryMethod = Literal["nmf", "profiles"]
"""Parts that activations are sums of; or groups of units with like profiles."""

_SHOWN = 5
_CLEAR = 0.25
"""The mean silhouette from which on clusters count as more than arbitrary (Kaufman and Rousseeuw,
1990)."""
_WORDS = {"nmf": "non-negative matrix factorization", "profiles": "profiles of units"}


class ComponentRecord(Finding):
    """A component of a layer.

    Attributes:
        name: Its number, unless a person has named it.
        channels: The units of a group; of a part those that hold most of it, largest first.
        stability: How well it is found again in resampled patients, 1 for always.
        top_cases: Ids of the cases in which it is strongest on average.
    """

    name: str
    channels: tuple[int, ...]
    stability: float
    top_cases: tuple[str, ...]


class DiscoveryRecord(Finding):
    """Components of a layer.

    Attributes:
        layer: Path of the layer.
        method: How they were found.
        components: As many as are stable.
        chosen: Their number, with stability and silhouette.
        candidates: All numbers that were tried.
        limit: The least stability that was asked for.
        dead: Units with one value everywhere.
        cases: Ids of the cases.
        remarks: Sentences for the reader.
        meanings: What each stands for, where that was asked.
    """

    layer: str
    method: DiscoveryMethod
    components: tuple[ComponentRecord, ...]
    chosen: CandidateRecord
    candidates: tuple[CandidateRecord, ...]
    limit: float
    dead: tuple[int, ...]
    cases: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    meanings: tuple[FoundDirectionRecord, ...] = ()


@dataclass(frozen=True, eq=False)
class Discovery:
    """Components of a layer, as directions and as units.

    Attributes:
        record: Their number, stability and strongest cases.
        directions: In the space of the channels; read, saved and intervened on.
    """

    record: DiscoveryRecord
    directions: Directions

    def units(self, component: int) -> UnitSet:
        """A component as units: the channels of a group, the direction of a part."""
        if self.record.method == "profiles":
            return UnitSet(self.record.components[component].channels)
        return self.directions.units(component)


def discover(
    model: Model | nn.Module,
    cohort: Cohort,
    layer: str | None = None,
    method: DiscoveryMethod = "nmf",
    *,
    counts: Sequence[int] = tuple(range(2, 11)),
    concepts: Sequence[Concept] = (),
    limit: float | None = None,
    per_case: int = 512,
    repeats: int = 10,
    clip: bool = False,
    region: RegionOfInterest = image_foreground,
    seed: int = 0,
) -> Discovery:
    """Components of a layer, as many as are found again in resampled patients.

    ``nmf`` writes activations as sums of non-negative parts; the stability of a part is its mean
    cosine with the part that it is matched with. ``profiles`` groups units by co-activation and,
    where there are concepts, by their correlation with them; the stability of a group is the mean
    Jaccard index. Of the numbers whose components all reach the limit, the largest number of parts
    is taken, and the number of groups with the largest silhouette.

    Args:
        model: A network, or a model.
        cohort: The cases.
        layer: Path of the layer; None is the last feature layer.
        method: Parts, or groups of units.
        counts: Numbers of components to choose from.
        concepts: For the profiles of units.
        limit: The least stability of a component; 0.9 for parts and 0.75 for groups if None.
        per_case: Cells of each case.
        repeats: How often patients are resampled.
        clip: Whether negative activations count as 0 for parts.
        region: The voxels that count.
        seed: Of draws, starts and resamples.

    Raises:
        ConfigError: If a number of components is below 2.
        InputError: If no number of components is stable, or the layer has negative activations.
    """
    if not counts or min(counts) < 2:
        raise ConfigError("numbers of components start at 2")
    (sample,) = sample_activations(
        model,
        cohort,
        () if layer is None else (layer,),
        concepts if method == "profiles" else (),
        per_case=per_case,
        region=region,
        seed=seed,
    ).values()
    limit = limit if limit is not None else {"nmf": 0.9, "profiles": 0.75}[method]
    counts = sorted({*counts})
    if method == "nmf":
        tried = [each for each in counts if each <= min(sample.values.shape)] or [2]
        found = part_candidates(sample, tried, repeats, clip, seed)
    else:
        found = group_candidates(sample, counts, repeats, seed)
    return _chosen(sample, found, method, limit)


def _chosen(
    sample: ActivationSample, found: Sequence[Candidate], method: DiscoveryMethod, limit: float
) -> Discovery:
    records = tuple(each.record for each in found)
    chosen = (largest_stable if method == "nmf" else clearest_stable)(records, limit)
    if chosen is None:
        best = max(records, key=lambda each: each.stability)
        raise InputError(
            f"layer {sample.layer!r}: no number of components is found again with a stability of "
            f"{limit:g} (the best of {len(records)}, {best.count}, has {best.stability:.2f}); add "
            "cases, or lower the limit"
        )
    candidate = next(each for each in found if each.record is chosen)
    names = tuple(f"component {number + 1}" for number in range(chosen.count))
    directions = _directions(sample, candidate, names, method)
    strength = directions.encode(sample.values.T)
    components = tuple(
        ComponentRecord(
            name=name,
            channels=candidate.channels[row] if candidate.channels else _main(directions, row),
            stability=float(candidate.stability[row]),
            top_cases=sample.top_cases(strength[row], _SHOWN),
        )
        for row, name in enumerate(names)
    )
    record = DiscoveryRecord(
        layer=sample.layer,
        method=method,
        components=components,
        chosen=chosen,
        candidates=records,
        limit=limit,
        dead=dead_units(sample),
        cases=sample.cases,
        remarks=_remarks(sample, chosen),
    )
    return Discovery(record, directions)


def _directions(
    sample: ActivationSample, candidate: Candidate, names: tuple[str, ...], method: DiscoveryMethod
) -> Directions:
    vectors = candidate.vectors.float()
    found = Directions.linear(sample.layer, vectors, names, found_by=_WORDS[method])
    return replace(found, reading="parts") if method == "nmf" else found


def _main(directions: Directions, row: int) -> tuple[int, ...]:
    """The channels that hold 90 % of the energy of a part, largest first."""
    energy = directions.vectors[row].square()
    order = energy.argsort(descending=True, stable=True)
    enough = int((energy[order].cumsum(0) < 0.9 * energy.sum()).sum()) + 1
    return tuple(order[:enough].tolist())


def _remarks(sample: ActivationSample, chosen: CandidateRecord) -> tuple[str, ...]:
    remarks, patients = [], len({*sample.patients})
    if patients < FEWEST_PATIENTS:
        remarks.append(
            f"stability is over resampled vectors, as {patients} patients are too few to be "
            f"resampled ({FEWEST_PATIENTS} at least)"
        )
    if chosen.silhouette < _CLEAR:
        remarks.append(
            f"the silhouette of {chosen.silhouette:.2f} is below {_CLEAR:g}: components overlap"
        )
    return tuple(remarks)
