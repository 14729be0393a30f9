"""One share of the voxels for all cases: the ROC of mean rates and the Dice at a common share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from voxplain.metrics import Case, evaluate
from voxplain.metrics.cross_case import ALONE, completed
from voxplain.records.scores import Score, Scores

LEVELS = 10


class Sum(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        total = image.flatten(1).sum(1)
        return torch.stack([-total, total], dim=1)


def study(shape: tuple[int, ...], count: int = 4) -> tuple[Tensor, list[Tensor]]:
    """Maps ``(B, 1, *spatial)`` that find masks of different sizes more or less well."""
    draws = torch.Generator().manual_seed(0)
    masks = [torch.rand(shape, generator=draws) < 0.08 + 0.1 * case for case in range(count)]
    noise = torch.rand(count, 1, *shape, generator=draws)
    maps = torch.stack([noise[i] + (0.2 + 0.3 * i) * masks[i][None] for i in range(count)])
    return maps, masks


def scored(maps: Tensor, masks: list[Tensor], patients: list[str] | None = None) -> Scores:
    images = torch.rand(maps.shape, generator=torch.Generator().manual_seed(1))
    names = patients or [f"p{number}" for number in range(len(masks))]
    cases = [
        Case(f"c{number}", patient=patient, mask=mask)
        for number, (patient, mask) in enumerate(zip(names, masks, strict=True))
    ]
    metrics: list[Any] = [
        {"name": "roc_auc_of_means", "levels": LEVELS},
        {"name": "dice_at_common_level", "levels": LEVELS},
        {"name": "max_dice", "levels": LEVELS},
        "roc_auc",
    ]
    table = evaluate(Sum(), images, {"m": maps}, metrics, target=1, cases=cases)
    return completed(table)


def rows(table: Scores, metric: str) -> list[Score]:
    return [row for row in table if row.metric == metric and row.method == "m"]


def at_levels(maps: Tensor, masks: list[Tensor]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """TPR, FPR and Dice ``(cases, levels)``, by a loop over thresholds."""
    found = np.zeros((3, len(masks), LEVELS))
    for i, (values, mask) in enumerate(zip(maps.numpy(), masks, strict=True)):
        inside = mask.numpy()
        ranked = np.sort(values[0].ravel())[::-1]
        for level in range(LEVELS):
            count = round(inside.size * (level + 1) / LEVELS)
            chosen = values[0] >= ranked[count - 1]
            hits = (chosen & inside).sum()
            found[0, i, level] = hits / inside.sum()
            found[1, i, level] = (chosen & ~inside).sum() / (~inside).sum()
            found[2, i, level] = 2 * hits / (chosen.sum() + inside.sum())
    return found[0], found[1], found[2]


@pytest.mark.parametrize("shape", [(11, 9), (7, 5, 6)])
def test_the_mean_over_cases_is_the_area_under_the_curve_of_mean_rates(
    shape: tuple[int, ...],
) -> None:
    maps, masks = study(shape)
    found = rows(scored(maps, masks), "roc_auc_of_means")
    true_rates, false_rates, _ = at_levels(maps, masks)
    x, y = np.append(0, false_rates.mean(0)), np.append(0, true_rates.mean(0))
    area = float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))
    assert np.mean([row.value for row in found]) == pytest.approx(area, abs=1e-12)
    assert [row.facts["area"] for row in found] == pytest.approx([area] * len(masks))
    np.testing.assert_allclose(found[0].curve, np.stack([x, y], axis=1))
    assert len({row.value for row in found}) == len(masks)


@pytest.mark.parametrize("shape", [(11, 9), (7, 5, 6)])
def test_one_share_is_the_best_for_the_mean_and_not_for_each(shape: tuple[int, ...]) -> None:
    maps, masks = study(shape)
    table = scored(maps, masks)
    found, own = rows(table, "dice_at_common_level"), rows(table, "max_dice")
    _, _, dice = at_levels(maps, masks)
    best = dice.mean(0).argmax()
    np.testing.assert_allclose([row.value for row in found], dice[:, best])
    np.testing.assert_allclose([row.facts["best_of_case"] for row in found], dice.max(1))
    assert {row.facts["share"] for row in found} == {(best + 1) / LEVELS}
    assert found[0].facts["deviation"] == pytest.approx(dice[:, best].std(ddof=1))
    pairs = list(zip(found, own, strict=True))
    assert all(row.value <= alone.value for row, alone in pairs)
    assert any(row.value < alone.value for row, alone in pairs)


def test_a_perfect_map_of_masks_of_one_size_reaches_the_ceiling_and_its_negative_the_floor() -> (
    None
):
    masks = []
    for start in (0, 30, 60):
        mask = torch.zeros(100, dtype=torch.bool)
        mask[start : start + 20] = True
        masks.append(mask.view(10, 10))
    maps = torch.stack([mask[None].float() for mask in masks])
    for sign, area, dice in ((1, 1.0, 1.0), (-1, 0.0, 2 * 20 / 120)):
        table = scored(sign * maps, masks)
        assert rows(table, "roc_auc_of_means")[1].value == pytest.approx(area, abs=1e-12)
        assert rows(table, "dice_at_common_level")[1].value == pytest.approx(dice)


def test_one_patient_alone_has_no_value_and_says_why() -> None:
    maps, masks = study((6, 6), count=2)
    table = scored(maps, masks, patients=["p", "p"])
    for metric in ("roc_auc_of_means", "dice_at_common_level"):
        assert all(math.isnan(row.value) and row.reason == ALONE for row in rows(table, metric))
    assert not math.isnan(rows(table, "roc_auc")[0].value)
