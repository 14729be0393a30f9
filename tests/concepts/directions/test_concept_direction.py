"""Directions of concepts, against directions that were planted."""

from __future__ import annotations

import torch
from planted import Pointwise, label_concept, noise_cohort
from torch import Tensor

from voxplain.concepts.directions.concept_direction import concept_direction

WEIGHTS = torch.tensor([2.0, -1.0, 0.5, 0.0])


def along(weights: Tensor) -> Tensor:
    def labels(data: Tensor) -> Tensor:
        reading = torch.einsum("k,k...->...", weights, data)
        return (reading > 1.5 * weights.norm()).long()

    return labels


def test_a_planted_direction_is_recovered() -> None:
    cohort = noise_cohort(labels=along(WEIGHTS))
    found = concept_direction(
        Pointwise(torch.ones(2, 4)), cohort, label_concept(), "layer", counts=(2,)
    )
    cosine = torch.dot(found.directions.vectors[0], WEIGHTS / WEIGHTS.norm())
    assert cosine > 0.99
    print(cosine, found.record)
