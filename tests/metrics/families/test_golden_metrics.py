"""Infidelity and sensitivity by hand, with changes of the image that are written down."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from injected import GivenChanges, GivenInfidelity, GivenNormalized, GivenSensitivity
from metric_cases import explained, metric_context, value
from networks import Cubes
from torch import Tensor, nn

from voxplain.metrics import MapField

IMAGES = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
SCORE = {"kind": "class_score", "label": 1}


class Squares(nn.Module):
    """S(x) = sum of x squared."""

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1).square().sum(1, keepdim=True)


@dataclass(frozen=True)
class Row:
    plain: float
    scaled: float
    normalized: float
    factor: float


ROWS = (
    Row(0.0518798828, 0.0024414063, 0.0012296342, 1.1875),
    Row(1.0284423828, 0.0175781250, 0.0005969531, 1.2275),
)


def _as(values: Tensor, rank: int) -> Tensor:
    """Two numbers as an image ``(1, ..., 2)``."""
    return values.view(*(1,) * rank, 2)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize("share", [False, True])
def test_infidelity_by_hand(case: int, rank: int, share: bool) -> None:
    image, row = _as(IMAGES[case], rank), ROWS[case]
    draws = torch.tensor([2.0 * case + 1, 2.0 * case + 2])[:, None].double() / 4
    changes = draws * torch.tensor([0.5, -1.0])
    given = GivenChanges.of(torch.stack([_as(change, rank) for change in changes]))
    context = metric_context(Squares(), image, target=SCORE)
    values = 2 * image * (image if share else 1)  # what it shares out, or its slopes
    field = MapField("gradient", values, share=share)
    plain = value(GivenInfidelity(given=given, draws=2), field, context)
    assert plain.value == pytest.approx(row.plain, abs=1e-9)
    best = value(GivenNormalized(given=given, draws=2), field, context)
    assert best.value == pytest.approx(row.normalized, abs=1e-9)
    assert best.facts["scale"] == pytest.approx(row.factor)
    scaled = MapField("scaled", row.factor * values, share=share)
    result = value(GivenInfidelity(given=given, draws=2), scaled, context)
    assert result.value == pytest.approx(row.scaled, abs=1e-9)


RATIOS = (
    (0.0193021, 0.0135865, 0.0078738, 0.0023285),
    (0.0017977, 0.0046196, 0.0075131, 0.0104223),
)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("case", [0, 1])
def test_sensitivity_by_hand(case: int, rank: int) -> None:
    noise = torch.linspace(-0.02, 0.02, 16, dtype=torch.float64).view(2, 4, 2)[case]
    context = explained(Cubes(), _as(IMAGES[case], rank), "saliency", target=SCORE)
    field = context.fields["saliency"]
    assert field.values.flatten().tolist() == (3 * IMAGES[case] ** 2).tolist()
    metric = GivenSensitivity(given=torch.stack([_as(row, rank) for row in noise]), draws=4)
    ratios = [step.map for step in context.run_query(metric.queries(context.engine)[0])["saliency"]]
    assert ratios == pytest.approx(RATIOS[case], abs=1e-6)
    assert value(metric, field, context).value == pytest.approx(max(RATIOS[case]), abs=1e-6)
