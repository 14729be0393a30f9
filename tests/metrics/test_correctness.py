"""Whether a prediction was right: in every row, where the truth is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from metric_cases import CLASS_ONE, metric_context
from torch import Tensor, nn

from voxplain.errors import ConfigError
from voxplain.metrics import Case, evaluate

UNIT: dict[str, Any] = {"kind": "unit", "layer": "0", "channel": 0}


def squares(*voxels: int) -> Tensor:
    """An image ``(1, 6, 6)`` that is 1 at these flat places, else -1."""
    image = torch.full((36,), -1.0)
    image[list(voxels)] = 1
    return image.view(1, 6, 6)


@pytest.mark.parametrize(
    ("predicted", "true", "right"),
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
    predicted: list[int], true: list[int], right: bool
) -> None:
    mask = squares(*true)[0] > 0
    assert metric_context(nn.Identity(), squares(*predicted), mask=mask).correct is right


def test_without_a_truth_nothing_is_right_or_wrong() -> None:
    network = nn.Sequential(nn.Identity(), nn.Identity())
    image, mask = squares(0), squares(0)[0] > 0
    assert metric_context(network, image).correct is None
    assert metric_context(network, image, target=UNIT, mask=mask).correct is None
    flat = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    assert metric_context(flat, image).correct is None
    assert metric_context(flat, image, mask=mask).correct is None  # where, and not what


def test_a_smaller_output_is_compared_where_it_lies() -> None:
    class Cropped(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image[..., 1:, :-1]

    image = squares(8, 9)
    assert metric_context(Cropped(), image, mask=image[0] > 0).correct is True
    for elsewhere in ((20, 21), (2, 3)):
        assert metric_context(Cropped(), image, mask=squares(*elsewhere)[0] > 0).correct is False
    outside = squares(0, 8, 9, 11, 35)[0] > 0  # 0, 11 and 35 lie where no output is
    assert metric_context(Cropped(), image, mask=outside).correct is True


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
        context = metric_context(network, squares(0), target=target, truth=truth)
        assert context.correct is (truth == expected)


def test_there_are_as_many_cases_as_images() -> None:
    images = torch.rand(2, 1, 6, 6)
    arguments: tuple[Any, ...] = (nn.Identity(), images, {"m": images}, ["sparseness"], CLASS_ONE)
    with pytest.raises(ConfigError, match="1 case for 2 images; pass one Case per image, or none"):
        evaluate(*arguments, cases=[Case()])
    with pytest.raises(ConfigError, match="3 cases for 2 images"):
        evaluate(*arguments, cases=[Case()] * 3)


def test_a_row_names_its_case_and_patient() -> None:
    images = torch.rand(3, 1, 6, 6)
    cases = [Case("a", patient="p", truth=1), Case(patient="p", truth=0), Case()]
    rows = evaluate(nn.Identity(), images, {"m": images}, ["sparseness"], CLASS_ONE, cases=cases)
    named = {(row.case, row.patient) for row in rows}
    assert named == {("a", "p"), ("1", "p"), ("2", "")}
    assert {row.correct for row in rows} == {None}  # of dense outputs without a reference
