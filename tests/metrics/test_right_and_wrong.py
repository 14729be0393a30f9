"""Whether a prediction was right: stated with every score, where the truth is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from metric_cases import CLASS_ONE, ask
from torch import Tensor, nn

from voxplain.errors import ConfigError
from voxplain.metrics import evaluate

UNIT: dict[str, Any] = {"kind": "unit", "layer": "0", "channel": 0}


def squares(*voxels: int) -> Tensor:
    """An image ``(1, 6, 6)`` that is 1 at these flat places, else -1."""
    image = torch.full((36,), -1.0)
    image[list(voxels)] = 1
    return image.view(1, 6, 6)


@pytest.mark.parametrize(
    ("found", "true", "right"),
    [
        ([0, 1, 2], [0, 1, 2], True),
        ([0, 1], [1, 2], True),  # a Dice of exactly 0.5
        ([0, 1], [1, 2, 3], False),
        ([0], [5], False),
        ([], [5], False),
        ([5], [], False),
        ([], [], True),
    ],
)
def test_an_object_is_right_from_a_dice_of_one_half_on(
    found: list[int], true: list[int], right: bool
) -> None:
    mask = squares(*true)[0] > 0
    assert ask(nn.Identity(), squares(*found), mask=mask).correct is right


def test_without_a_truth_nothing_is_right_or_wrong() -> None:
    network = nn.Sequential(nn.Identity(), nn.Identity())
    image, mask = squares(0), squares(0)[0] > 0
    assert ask(network, image).correct is None
    assert ask(network, image, target=UNIT, mask=mask).correct is None
    assert ask(nn.AvgPool2d(2), image, mask=mask).correct is None
    flat = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    assert ask(flat, image).correct is None
    assert ask(flat, image, mask=mask).correct is None  # where, and not what


@pytest.mark.parametrize(
    ("logit", "threshold", "expected"), [(1, 0.5, 1), (-1, 0.5, 0), (1, 0.9, 0)]
)
def test_one_logit_prefers_a_side_of_the_threshold(
    logit: float, threshold: float, expected: int
) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.fill_(logit)
    target = CLASS_ONE | {"threshold": threshold}
    for truth in (0, 1):
        context = ask(network, squares(0), target=target, truth=truth)
        assert context.correct is (truth == expected)


def test_there_are_as_many_truths_and_patients_as_images() -> None:
    images = torch.rand(2, 1, 6, 6)
    asked: tuple[Any, ...] = (nn.Identity(), images, {"m": images}, ["sparseness"], CLASS_ONE)
    with pytest.raises(ConfigError, match="1 patients for 2 images"):
        evaluate(*asked, patients=["p"])
    with pytest.raises(ConfigError, match="3 true classes for 2 images"):
        evaluate(*asked, truths=[1, 0, None])
    assert {row.correct for row in evaluate(*asked, truths=[1, 0])} == {None}  # of dense outputs
