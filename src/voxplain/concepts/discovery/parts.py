"""Numbers of parts of a factorization, each with its stability over resampled patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from voxplain.concepts.activation_sample import ActivationSample
from voxplain.concepts.discovery.nmf import factorize
from voxplain.concepts.stability import (
    CandidateRecord,
    matched,
    matched_cosines,
    resamples,
    silhouette,
)
from voxplain.errors import InputError

_NEGATIVE = 1e-6


@dataclass(frozen=True, eq=False)
class Candidate:
    """Some components that were found.

    Attributes:
        record: Their number and stability.
        vectors: ``(r, K)`` of length 1.
        stability: ``(r,)`` of each.
        channels: Of each, where they are groups of units; else empty.
    """

    record: CandidateRecord
    vectors: Tensor
    stability: Tensor
    channels: tuple[tuple[int, ...], ...] = ()


def part_candidates(
    sample: ActivationSample, counts: Sequence[int], repeats: int, clip: bool, seed: int
) -> list[Candidate]:
    """A factorization for each number of parts, with channels divided by their root mean square.

    Args:
        sample: Activations, none of them negative.
        counts: Numbers of parts.
        repeats: How often patients are resampled.
        clip: Whether negative activations count as 0.
        seed: Of starts and resamples.

    Raises:
        InputError: If activations are negative.
    """
    values, scale = _scaled(sample, clip)
    drawn = resamples(sample.rows_by_patient(), repeats, (seed, "resample"))
    found = []
    for count in counts:
        whole = factorize(values, count, (seed, "parts", count))
        again = [
            factorize(values[rows], count, (seed, "parts", count, number), starts=2).parts
            for number, rows in enumerate(drawn)
        ]
        stability = torch.stack([matched_cosines(whole.parts, parts) for parts in again]).mean(0)
        record = CandidateRecord(
            count=count,
            stability=float(stability.min()),
            mean_stability=float(stability.mean()),
            silhouette=_silhouette(whole.parts, again),
            explained=whole.explained,
        )
        vectors = functional.normalize(whole.parts * scale, dim=1)
        found.append(Candidate(record, vectors, stability))
    return found


def _scaled(sample: ActivationSample, clip: bool) -> tuple[Tensor, Tensor]:
    values = sample.values.double()
    if not clip and float(values.min()) < -_NEGATIVE * float(values.abs().max()):
        share = float((values < 0).double().mean())
        raise InputError(
            f"layer {sample.layer!r} has negative activations ({share:.0%}), which are no sums of "
            "parts; choose the layer after its rectifier, or clip=True to count them as 0"
        )
    values = values.clamp(min=0)
    scale = values.square().mean(dim=0).sqrt()
    if not bool(scale.any()):
        raise InputError(f"layer {sample.layer!r} is 0 everywhere in these cases: it has no parts")
    return values / torch.where(scale > 0, scale, 1), scale


def _silhouette(parts: Tensor, again: Sequence[Tensor]) -> float:
    """Of the parts of all resamples, each in the cluster of the part that it is matched with."""
    pooled = functional.normalize(torch.cat(list(again)), dim=1)
    labels = torch.cat([matched(functional.normalize(each, dim=1) @ parts.T) for each in again])
    return silhouette((1 - pooled @ pooled.T).clamp(min=0), labels)
