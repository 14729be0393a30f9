"""Whether what was found is found again: matched components over resampled patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from voxplain.concepts.finding import Finding
from voxplain.engine.randomness import generator

FEWEST_PATIENTS = 4
"""From which on patients are resampled; below, the single vectors are."""


class CandidateRecord(Finding):
    """A number of components that was tried.

    Attributes:
        count: How many components.
        stability: That of the least stable component.
        mean_stability: Mean over the components.
        silhouette: Mean silhouette, in [-1, 1]; NaN where there is none.
        explained: Share of the energy of the activations; NaN for groups of units.
    """

    count: int
    stability: float
    mean_stability: float
    silhouette: float
    explained: float


def resamples(
    rows_by_patient: Mapping[str, Tensor], count: int, key: tuple[object, ...]
) -> list[Tensor]:
    """Numbers of the vectors of resampled patients, of single vectors below four patients."""
    names = sorted(rows_by_patient)
    everything = torch.cat([rows_by_patient[name] for name in names])
    found = []
    for number in range(count):
        source = generator(*key, number)
        if len(names) < FEWEST_PATIENTS:
            picks = torch.randint(len(everything), (len(everything),), generator=source)
            found.append(everything[picks])
        else:
            picks = torch.randint(len(names), (len(names),), generator=source)
            found.append(torch.cat([rows_by_patient[names[int(pick)]] for pick in picks]))
    return found


def matched(similarity: Tensor) -> Tensor:
    """For every row ``(r, n)`` the column that it goes with, so that their similarities add up."""
    _, columns = linear_sum_assignment(similarity.double().numpy(), maximize=True)
    return torch.as_tensor(columns)


def matched_cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of every vector ``(r, K)`` with the one of another set that it is matched with."""
    similarity = functional.normalize(first, dim=1) @ functional.normalize(second, dim=1).T
    return similarity[torch.arange(len(first)), matched(similarity)]


def silhouette(distances: Tensor, labels: Tensor) -> float:
    """Mean silhouette (Rousseeuw, 1987) of clusters, in [-1, 1]; 0 for a cluster of one.

    Args:
        distances: ``(n, n)``.
        labels: ``(n,)`` the cluster of each.

    Returns:
        NaN where there is one cluster.
    """
    names, index = torch.unique(labels, return_inverse=True)
    if len(names) < 2:
        return float("nan")
    member = functional.one_hot(index, len(names)).to(distances)
    sizes = member.sum(dim=0)
    sums = distances @ member
    own_size = sizes[index]
    own = sums.gather(1, index[:, None])[:, 0] / (own_size - 1).clamp(min=1)
    others = (sums / sizes).masked_fill(member.bool(), float("inf")).amin(dim=1)
    widths = (others - own) / torch.maximum(others, own).clamp(min=1e-12)
    return float(torch.where(own_size > 1, widths, 0).mean())


def largest_stable(candidates: Sequence[CandidateRecord], limit: float) -> CandidateRecord | None:
    """The largest number of components of which each is stable; None where there is none."""
    stable = [each for each in candidates if each.stability >= limit]
    return max(stable, key=lambda each: each.count, default=None)


def clearest_stable(candidates: Sequence[CandidateRecord], limit: float) -> CandidateRecord | None:
    """The stable number of components with the largest silhouette; None where there is none."""
    stable = [each for each in candidates if each.stability >= limit]
    return max(stable, key=lambda each: each.silhouette, default=None)
