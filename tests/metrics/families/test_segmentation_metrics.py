"""Metrics of the predicted object, on a network whose object is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from metric_cases import LinearClasses, bright, metric_context, reason, value
from torch import Tensor, nn

from voxplain.image import Image
from voxplain.metrics import MapField, MetricContext
from voxplain.models.model import Model

SEGMENT = {"kind": "pixelwise", "label": 1}


class Bright(nn.Module):
    """Class 1 where the image is above one half."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([self.level.expand_as(image), image], dim=1)


def _object(rank: int) -> Tensor:
    """A bright cube of 4 voxels a side in 8, ``(1, *spatial)``."""
    image = torch.zeros(1, *(8,) * rank, dtype=torch.float64)
    image[(0, *(slice(2, 6),) * rank)] = 1
    return image


def _context(rank: int, spacing: Any = None) -> MetricContext:
    image = _object(rank)
    return metric_context(
        Bright(), Image.from_array(image, spacing) if spacing else image, target=SEGMENT
    )


@pytest.mark.parametrize("rank", [2, 3])
def test_the_object_dissolves_as_its_voxels_go(rank: int) -> None:
    """The map that ranks the object first has the largest drop."""
    context, size = _context(rank), 4**rank
    total = 8**rank
    first = _object(rank) + 1e-3 * torch.rand(1, *(8,) * rank)
    result = value("dice_drop", MapField("m", first), context, fill="zero", levels=total)
    left = np.clip(size - np.arange(total + 1), 0, None)
    dice = 2 * left / (left + size)
    assert result.value == pytest.approx(1 - np.trapezoid(dice, dx=1 / total), abs=1e-12)
    assert [y for _, y in result.curve] == pytest.approx(dice)
    last = value("dice_drop", MapField("m", -first), context, fill="zero", levels=total)
    assert last.value < result.value


@pytest.mark.parametrize(
    ("rank", "spacing", "unit", "voxel"),
    [
        (3, (5, 4, 2), "mL", 0.04),
        (2, (5, 4), "cm²", 0.2),
        (3, None, "voxels", 1),
        (2, None, "pixels", 1),
    ],
)
def test_volumes_change_in_physical_units(rank: int, spacing: Any, unit: str, voxel: float) -> None:
    context, total = _context(rank, spacing), 8**rank
    first = _object(rank) + 1e-3 * torch.rand(1, *(8,) * rank)
    share = 1 / 16
    result = value("volume_change", MapField("m", first), context, fill="zero", share=share)
    assert result.value == pytest.approx(-total * share * voxel)
    assert result.facts["relative"] == pytest.approx(-total * share / 4**rank)
    assert result.facts["unit"] == unit
    half = value("volume_change", MapField("m", first), context, fill="zero", share=share / 2)
    assert half.value == pytest.approx(result.value / 2)


@pytest.mark.parametrize("rank", [2, 3])
def test_context_and_boundary_are_shares_of_magnitude(rank: int) -> None:
    context = _context(rank, spacing=(1.0,) * rank)
    values = torch.zeros(1, *(8,) * rank)
    middle = (0, *(3,) * rank)
    edge, near, far = (0, 2, *(3,) * (rank - 1)), (0, 1, *(3,) * (rank - 1)), (0, *(0,) * rank)
    values[middle], values[edge], values[near], values[far] = -1, 2, 3, 4
    field = MapField("m", values)
    result = value("context_share", field, context, margin=1.0)
    assert result.value == pytest.approx(0.7)
    assert result.facts["beyond_margin"] == pytest.approx(0.4)
    band = value("boundary_share", field, context, margin=1.0)
    assert band.value == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["dice_drop", "volume_change", "context_share", "boundary_share"])
def test_without_an_object_there_is_no_score(name: str) -> None:
    image = bright(2, 1, 6)
    field = MapField("m", torch.randn(1, 6, 6))
    assert reason(name, field, metric_context(LinearClasses((1, 6, 6)), image))
    target = {"kind": "class_score", "label": 1}
    dark = metric_context(
        Bright(), torch.zeros(1, 6, 6).double() + torch.rand(1, 6, 6) / 10, target=target
    )
    assert "object" in reason(name, field, dark)


def _truth(rank: int) -> Tensor:
    """The bright cube of :func:`_object` one voxel further along the first axis."""
    truth = torch.zeros((8,) * rank, dtype=torch.bool)
    truth[(slice(3, 7), *(slice(2, 6),) * (rank - 1))] = True
    return truth


def _mistaken(rank: int, error: str, network: Any = None) -> MetricContext:
    target = {"kind": "error_region", "label": 1, "reference": _truth(rank), "error": error}
    return metric_context(network or Bright(), _object(rank), target=target)


@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("error", ["fp", "fn"])
@pytest.mark.parametrize("rank", [2, 3])
def test_the_map_of_an_error_is_compared_with_that_error(
    rank: int, error: str, windowed: bool
) -> None:
    network = Model(Bright(), window={"size": 4, "overlap": 0.5}) if windowed else None
    context = _mistaken(rank, error, network)
    predicted = _object(rank)[0] > 0.5
    wrong = predicted & ~_truth(rank) if error == "fp" else _truth(rank) & ~predicted
    assert int(wrong.sum()) == 4 ** (rank - 1)
    ceiling = value("error_localization", MapField("m", wrong[None].double()), context)
    assert ceiling.value == pytest.approx(1)
    share = 4 ** (rank - 1) / 8**rank
    assert ceiling.facts["chance"] == pytest.approx(share)
    assert ceiling.facts["lift"] == pytest.approx(1 / share)
    opposite = MapField("m", (predicted ^ _truth(rank) ^ wrong)[None].double())  # the other error
    precision = value("error_localization", opposite, context).value
    assert precision == pytest.approx(share)  # nothing is found before everything is taken
    noise = MapField("m", torch.randn(1, *(8,) * rank))
    beside = metric_context(Bright(), _object(rank), target=SEGMENT, mask=wrong)
    expected = value("auprc", noise, beside).value
    assert value("error_localization", noise, context).value == pytest.approx(expected)


def test_only_errors_are_localized() -> None:
    field = MapField("m", torch.randn(1, 8, 8))
    said = reason("error_localization", field, _context(2))
    assert said == "the target is not an error; explain one with a target error_region"
    target = {"kind": "error_region", "label": 1, "reference": torch.zeros(8, 8)}
    context = metric_context(Bright(), torch.ones(1, 8, 8).double(), target=target)
    assert "the error region fills the image" in reason("error_localization", field, context)


def test_an_error_on_a_coarser_output_lies_on_the_voxels_of_its_cells() -> None:
    network = nn.Sequential(nn.AvgPool2d(2), Bright())
    target = {"kind": "error_region", "label": 1, "reference": torch.zeros(4, 4)}
    context = metric_context(network, _object(2), target=target)
    with torch.no_grad():
        wrong = network(context.engine.inputs)[0].argmax(0) == 1
    fine = wrong.repeat_interleave(2, 0).repeat_interleave(2, 1)
    field = MapField("m", fine[None].double())
    found = value("error_localization", field, context)
    assert (found.value, found.facts["voxels"]) == (pytest.approx(1.0), int(fine.sum()))


@pytest.mark.parametrize("rank", [2, 3])
def test_a_boundary_is_as_wide_as_its_voxels(rank: int) -> None:
    """Voxels of 3.2 mm have none within 3 mm of the other side; pixels of 0.02 mm, all."""
    values = torch.zeros(1, *(8,) * rank)
    edge, inner, outer = (0, 2, *(3,) * (rank - 1)), (0, *(3,) * rank), (0, *(0,) * rank)
    values[edge], values[inner], values[outer] = 1, 1, 2
    field = MapField("m", values)
    coarse = _context(rank, spacing=(3.2,) * rank)
    assert value("boundary_share", field, coarse).value == pytest.approx(0.25)
    fine = _context(rank, spacing=(0.02,) * rank)
    assert "whole image lies within 3 mm" in reason("boundary_share", field, fine)
