"""Sensitivity of a score to given directions: closed form, dead directions, a test that holds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from planted import Pointwise, noise_cohort
from torch import Tensor
from torch.nn import functional

from voxplain.concepts.directions import Directions, direction_sensitivity
from voxplain.concepts.directions.sensitivity import SensitivitiesRecord
from voxplain.errors import ConfigError, TargetError

HEAD = torch.tensor([[2.0, -1.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]])
SCORE = {"kind": "class_score", "label": 0}
ALONG, ACROSS = functional.normalize(HEAD[:1], dim=1), torch.eye(4)[3:]


def given(*vectors: Tensor) -> Directions:
    names = tuple(f"direction {number}" for number in range(len(vectors)))
    return Directions.linear("layer", torch.cat(vectors), names)


def measured(directions: Directions, rank: int = 2, dense: bool = False) -> SensitivitiesRecord:
    cohort = noise_cohort(8, 4, (8, 8, 5)[:rank])
    selection, held_out = cohort.split(0.5)
    network = Pointwise(HEAD, rank, dense)
    return direction_sensitivity(
        network, selection, held_out, directions, SCORE, random_directions=199
    )


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("dense", [False, True])
def test_the_derivative_along_a_direction_is_exact(rank: int, dense: bool) -> None:
    oblique = functional.normalize(torch.tensor([[1.0, 2.0, -1.0, 3.0]]), dim=1)
    (row,) = measured(given(oblique), rank, dense).rows
    voxels = math.prod((8, 8, 5)[:rank]) if dense else 1
    assert row.mean == pytest.approx(voxels * float(oblique[0] @ HEAD[0]), rel=1e-4)
    assert row.share_positive == float(oblique[0] @ HEAD[0] > 0)
    assert math.isnan(row.accuracy)
    assert row.cases == 4


def test_the_direction_that_a_score_reads_is_significant_and_others_are_not() -> None:
    along, across = measured(given(ALONG, ACROSS)).rows
    assert along.p_mean == pytest.approx(2 / 200)  # beyond all 199 random directions
    assert along.q_mean == pytest.approx(2 * along.p_mean)
    assert along.mean > along.random_mean[1]
    assert across.mean == pytest.approx(0, abs=1e-6)
    assert across.p_mean > 0.05


def test_p_values_of_directions_like_the_random_ones_are_uniform() -> None:
    source = torch.Generator().manual_seed(3)
    drawn = functional.normalize(torch.randn(200, 4, generator=source), dim=1)
    values = sorted(row.p_mean for row in measured(given(*drawn.split(1))).rows)
    assert sum(value <= 0.05 for value in values) / 200 < 0.1
    assert 0.35 < values[100] < 0.65


def test_a_direction_that_is_never_active_has_no_score() -> None:
    directions = replace(
        given(ALONG, ALONG), reading="top_k", active=2, offset=torch.tensor([0.0, -100.0])
    )
    alive, dead = measured(directions).rows
    assert alive.p_mean < 0.05
    assert alive.q_mean == alive.p_mean  # a dead direction is no test
    assert dead.reason == "it is active in no selection case"
    assert all(map(math.isnan, (dead.mean, dead.p_mean, dead.q_mean, dead.share_positive)))


def test_what_does_not_fit_is_said_in_a_sentence() -> None:
    cohort = noise_cohort(4)
    selection, held_out = cohort.split(0.5)
    network = Pointwise(HEAD)
    with pytest.raises(ConfigError, match="20 random directions cannot show"):
        direction_sensitivity(
            network, selection, held_out, given(ALONG), SCORE, random_directions=20
        )
    nowhere = {"kind": "pixelwise", "label": 1}
    dense = Pointwise(torch.tensor([[0.0] * 4, [0.0] * 4]), dense=True)
    with pytest.raises(TargetError, match="no held-out case has a score"):
        direction_sensitivity(dense, selection, held_out, given(ALONG), nowhere)
