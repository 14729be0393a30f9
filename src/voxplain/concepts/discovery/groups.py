"""Groups of units with like co-activation and like concepts, each with its stability."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from torch import Tensor
from torch.nn import functional

from voxplain.concepts.activation_sample import ActivationSample
from voxplain.concepts.discovery.parts import Candidate
from voxplain.concepts.stability import (
    CandidateRecord,
    matched,
    resamples,
    silhouette,
)
from voxplain.errors import InputError


def group_candidates(
    sample: ActivationSample, counts: Sequence[int], repeats: int, seed: int
) -> list[Candidate]:
    """Clusters of units for each number of clusters, by average linkage.

    The profile of a unit is its correlation with every unit (co-activation) and with every concept
    (dissection), both parts with the same weight; the distance is 1 - cosine of two profiles. The
    stability of a group is its mean Jaccard index with the group that it is matched with in
    resampled patients (Hennig, 2007).

    Args:
        sample: Activations, with or without concepts.
        counts: Numbers of groups.
        repeats: How often patients are resampled.
        seed: Of the resamples.

    Raises:
        InputError: If fewer than three units are active.
    """
    alive = (sample.values.double().std(dim=0) > 0).nonzero()[:, 0]
    counts = [count for count in counts if count < len(alive)]
    if not counts:
        raise InputError(
            f"layer {sample.layer!r} has {len(alive)} units that vary in these cases, too few to "
            "be grouped"
        )
    distances = _distances(sample, alive)
    drawn = resamples(sample.rows_by_patient(), repeats, (seed, "resample"))
    again = [_distances(sample.rows(rows), alive) for rows in drawn]
    return [_candidate(sample, alive, distances, again, count) for count in counts]


def dead_units(sample: ActivationSample) -> tuple[int, ...]:
    """Units with one value everywhere."""
    is_dead = sample.values.double().std(dim=0) == 0
    return tuple(is_dead.nonzero()[:, 0].tolist())


def _candidate(
    sample: ActivationSample, alive: Tensor, distances: Tensor, again: list[Tensor], count: int
) -> Candidate:
    labels = _clusters(distances, count)
    stability = torch.stack([_jaccard(labels, _clusters(each, count)) for each in again]).mean(0)
    groups = [alive[labels == label] for label in range(len(stability))]
    spread = sample.values.double().std(dim=0)
    vectors = torch.zeros(len(groups), sample.values.shape[1], dtype=torch.float64)
    for row, group in enumerate(groups):
        vectors[row, group] = spread[group]
    record = CandidateRecord(
        count=count,
        stability=float(stability.min()),
        mean_stability=float(stability.mean()),
        silhouette=silhouette(distances, labels),
        explained=float("nan"),
    )
    channels = tuple(tuple(group.tolist()) for group in groups)
    return Candidate(record, functional.normalize(vectors, dim=1), stability, channels)


def _distances(sample: ActivationSample, alive: Tensor) -> Tensor:
    """1 - cosine of the profiles of the active units."""
    values = _standardized(sample.values[:, alive])
    profiles = [functional.normalize(values.T @ values, dim=1)]
    if sample.names:
        concepts = _standardized(sample.concepts.nan_to_num(0))
        profiles.append(functional.normalize(values.T @ concepts, dim=1))
    profile = functional.normalize(torch.cat(profiles, dim=1), dim=1)
    distances = (1 - profile @ profile.T).clamp(min=0)
    return distances.fill_diagonal_(0)


def _standardized(values: Tensor) -> Tensor:
    values = values.double()
    centered = values - values.mean(dim=0)
    length = centered.norm(dim=0)
    return centered / torch.where(length > 0, length, 1)


def _clusters(distances: Tensor, count: int) -> Tensor:
    symmetric = ((distances + distances.T) / 2).numpy()
    tree = hierarchy.linkage(squareform(symmetric, checks=False), "average")
    labels = hierarchy.cut_tree(tree, n_clusters=count)[:, 0]
    return torch.as_tensor(labels).long()


def _jaccard(first: Tensor, second: Tensor) -> Tensor:
    """Jaccard index of every cluster with the one of another clustering that it goes with."""
    one = functional.one_hot(first).double()
    two = functional.one_hot(second).double()
    both = one.T @ two
    index = both / (one.sum(0)[:, None] + two.sum(0) - both)
    return index[torch.arange(len(index)), matched(index)]
