"""Sensitivities to concepts, against linear networks and against what random concepts give."""

from __future__ import annotations

import torch
from planted import Pointwise, label_concept, noise_cohort
from torch import Tensor

from voxplain.concepts.directions.sensitivity import concept_sensitivity

WEIGHTS = torch.tensor([2.0, -1.0, 0.5, 0.0])


def bright(data: Tensor) -> Tensor:
    return (torch.einsum("k,k...->...", WEIGHTS, data) > 1.5 * WEIGHTS.norm()).long()


def test_the_derivative_of_a_linear_network_is_exact() -> None:
    head = torch.tensor([[1.0, 2.0, -1.0, 0.5], [0.3, -2.0, 1.0, 0.0]])
    found = concept_sensitivity(
        Pointwise(head), noise_cohort(labels=bright), [label_concept()], ["layer"], target=0
    )
    row = found.of("planted", "layer")
    direction = found.directions["layer"].vectors[0]
    assert torch.isclose(torch.tensor(row.mean), direction @ head[0], atol=1e-5)
    assert row.share_positive == float(direction @ head[0] > 0)
    print(found.record, direction)
