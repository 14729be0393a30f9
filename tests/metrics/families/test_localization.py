"""Localization: ceilings, chance, ties, distances in millimeters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from metric_cases import LinearClasses, bright, metric_context, reason, value
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from voxplain.image import Image
from voxplain.metrics import CrossCaseMetric, MapField, MetricContext, metrics
from voxplain.metrics.families.localization import Localization

LOCALIZATION = tuple(
    name
    for name in metrics
    if issubclass(metrics.get(name), Localization)
    and not issubclass(metrics.get(name), CrossCaseMetric)
)


def _mask(rank: int, size: int = 8) -> Tensor:
    """Two separate lesions, off the border."""
    mask = torch.zeros((size,) * rank, dtype=torch.bool)
    mask[(slice(1, 3),) * rank] = True
    mask[(slice(5, 7),) * rank] = True
    return mask


def _context(mask: Tensor, spacing: Any = None) -> MetricContext:
    image = bright(mask.ndim, 1, mask.shape[0])
    scan = Image.from_array(image, spacing) if spacing else image
    return metric_context(LinearClasses(tuple(image.shape)), scan, mask=mask)


FAR: dict[str, Any] = {"pointing_game": {"tolerance": 0}, "energy_in_dilated_mask": {"margin": 1}}


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("name", LOCALIZATION)
def test_the_mask_itself_reaches_the_ceiling(rank: int, name: str) -> None:
    mask = _mask(rank)
    near = FAR.get(name, {})
    result = value(name, MapField("mask", mask[None].float()), _context(mask), **near).value
    ceilings = {"distance_to_lesion": 0, "attribution_localization": mask.numel() / mask.sum()}
    assert result == pytest.approx(float(ceilings.get(name, 1)))
    corner = torch.zeros(1, *mask.shape)
    corner[(0, *(-1 if axis else 0 for axis in range(rank)))] = 1  # far from both lesions
    elsewhere = value(name, MapField("corner", corner), _context(mask), **near).value
    assert elsewhere != pytest.approx(result)


def test_a_lesion_below_one_percent_can_still_be_found() -> None:
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[7, 7:10] = True
    result = value("max_dice", MapField("mask", mask[None].float()), _context(mask))
    assert result.value == 1
    assert result.facts["share"] == 3 / 1600


SEEDS = range(200)
CHANCES = ("auprc", "top_k_intersection", "relevance_rank_accuracy", "relevance_mass_accuracy")


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("name", ["roc_auc", *CHANCES])
def test_random_maps_score_at_chance(rank: int, name: str) -> None:
    mask = _mask(rank)
    context = _context(mask)
    share = float(mask.double().mean())
    values = np.array(
        [
            value(name, MapField("r", torch.randn(1, *mask.shape), key=str(seed)), context).value
            for seed in SEEDS
        ]
    )
    chance = 0.5 if name == "roc_auc" else share
    if name == "auprc":  # the mean precision of few hits among few voxels lies a little above
        rng = np.random.default_rng(0)
        flat = mask.flatten().numpy()
        chance = np.mean([average_precision_score(flat, rng.random(len(flat))) for _ in SEEDS])
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert abs(values.mean() - chance) < (3 if name != "auprc" else 3 * math.sqrt(2)) * error


def test_precision_of_large_random_maps_is_the_share() -> None:
    mask = torch.zeros(200, 200, dtype=torch.bool)
    mask[50:90, 50:90] = True
    result = value("auprc", MapField("r", torch.randn(1, 200, 200)), _context(mask))
    assert result.value == pytest.approx(0.04, rel=0.1)
    assert result.facts["chance"] == pytest.approx(0.04)
    assert result.facts["lift"] == pytest.approx(result.value / 0.04)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("levels", [2, 5, 10**6])
def test_curves_equal_scikit_learn_with_and_without_ties(rank: int, levels: int) -> None:
    mask = _mask(rank)
    source = torch.Generator().manual_seed(levels)
    values = (torch.rand(1, *mask.shape, generator=source, dtype=torch.float64) * levels).floor()
    values[:, mask] += levels // 2
    context, field = _context(mask), MapField("given", values)
    truth, scores = mask.flatten().numpy(), values.flatten().numpy()
    roc, precision = roc_auc_score(truth, scores), average_precision_score(truth, scores)
    assert value("roc_auc", field, context).value == pytest.approx(roc, abs=1e-12)
    assert value("auprc", field, context).value == pytest.approx(precision, abs=1e-12)


def test_the_best_dice_is_the_best_of_all_cuts() -> None:
    mask = _mask(2)
    values = torch.rand(1, 8, 8, dtype=torch.float64)
    result = value("max_dice", MapField("given", values), _context(mask), levels=64)
    cuts = [values[0] >= cut for cut in values.flatten()]
    dice = [2 * float((cut & mask).sum()) / float(cut.sum() + mask.sum()) for cut in cuts]
    assert result.value == pytest.approx(max(dice))
    assert round(result.facts["share"] * 64) == int(cuts[int(np.argmax(dice))].sum())


def test_negative_evidence_does_not_count_as_mass() -> None:
    """A signed denominator gave shares from -3.4 to 3.1."""
    mask = _mask(2)
    context = _context(mask)
    for seed in range(20):
        source = torch.Generator().manual_seed(seed)
        values = torch.randn(1, 8, 8, generator=source)
        values -= values.mean()
        for name in ("relevance_mass_accuracy", "energy_in_dilated_mask"):
            assert 0 <= value(name, MapField("zero mean", values), context).value <= 1


def test_mass_is_a_ratio_of_sums() -> None:
    mask = _mask(2)
    values = torch.full((1, 8, 8), -5.0)
    values[0, 1, 1], values[0, 0, 0] = 3.0, 1.0
    assert value("relevance_mass_accuracy", MapField("m", values), _context(mask)).value == 0.75


def test_the_tolerance_of_pointing_is_in_millimeters() -> None:
    mask = torch.zeros(9, 9, 9, dtype=torch.bool)
    mask[4, 4, 4] = True
    context = _context(mask, spacing=(3.0, 1.0, 1.0))

    def hit(*place: int, tolerance: float = 5.0) -> float:
        values = torch.zeros(1, 9, 9, 9)
        values[(0, *place)] = 1
        return value("pointing_game", MapField("m", values), context, tolerance=tolerance).value

    assert hit(4, 4, 8) == 1  # 4 mm
    assert hit(6, 4, 4) == 0  # 6 mm
    assert hit(5, 5, 5, tolerance=0) == 1  # a voxel diagonal is always near
    assert hit(4, 4, 8, tolerance=0) == 0
    assert hit(4, 8, 7) == 1  # exactly 5 mm
    assert hit(4, 8, 8) == 0


def test_distances_are_in_millimeters() -> None:
    mask = torch.zeros(9, 9, 9, dtype=torch.bool)
    mask[4, 4, 4] = True
    values = torch.zeros(1, 9, 9, 9)
    values[0, 5, 4, 4], values[0, 4, 4, 5], values[0, 0, 0, 0] = 1.0, 3.0, -9.0
    field = MapField("m", values)
    result = value("distance_to_lesion", field, _context(mask, spacing=(3.0, 1.0, 1.0)))
    assert result.value == pytest.approx((3 + 3 * 1) / 4)
    assert result.facts["unit"] == "mm"
    assert value("distance_to_lesion", field, _context(mask)).facts["unit"] == "voxels"


def test_lesions_are_hit_one_by_one() -> None:
    mask = _mask(3)  # two lesions of eight voxels
    values = torch.zeros(1, 8, 8, 8)
    values[0, 1, 1, 1] = 2.0
    values[0, 0, 6, 0] = 1.0
    values += torch.linspace(0, -1, 8)[None, :, None, None]
    result = value("lesion_hit_rate", MapField("m", values), _context(mask), factor=1 / 8)
    assert result.value == 0.5
    assert result.facts == {"lesions": 2, "hits": 1, "false_positives": 1}


def test_a_lesion_is_not_hit_by_touching_its_edge() -> None:
    mask = torch.zeros(10, 10, dtype=torch.bool)
    mask[1:6, 1:6] = True  # 25 voxels
    for hits, expected in ((2, 0), (3, 1)):
        values = torch.zeros(1, 10, 10)
        values[0, 9, : 3 - hits] = 3
        values[0, 1, 1 : 1 + hits] = 2
        values += torch.linspace(0, -1, 100).view(1, 10, 10)
        result = value("lesion_hit_rate", MapField("m", values), _context(mask), factor=3 / 25)
        assert result.value == expected


@pytest.mark.parametrize("name", LOCALIZATION)
def test_no_mask_and_no_lesion_are_reasons(name: str) -> None:
    field = MapField("m", torch.randn(1, 8, 8))
    image = bright(size=8)
    network = LinearClasses(tuple(image.shape))
    assert "no reference mask" in reason(name, field, metric_context(network, image))
    for mask in (torch.zeros(8, 8), torch.ones(8, 8)):
        assert "empty or fills the image" in reason(
            name, field, metric_context(network, image, mask=mask)
        )


@pytest.mark.parametrize("name", LOCALIZATION)
def test_a_slice_and_a_volume_of_one_slice_score_the_same(name: str) -> None:
    mask, values = _mask(2), torch.randn(1, 8, 8)
    image = bright(size=8)
    flat = metric_context(LinearClasses((1, 8, 8)), image, mask=mask)
    thin = metric_context(LinearClasses((1, 1, 8, 8)), image[:, None], mask=mask[None])
    of_slice = value(name, MapField("m", values, key="k"), flat)
    of_volume = value(name, MapField("m", values[:, None], key="k"), thin)
    assert of_slice.value == pytest.approx(of_volume.value, abs=1e-12)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("name", FAR)
def test_a_margin_that_covers_the_image_gives_a_reason(rank: int, name: str) -> None:
    """Margins meant for bodies, on pixels of a fundus photograph."""
    mask = _mask(rank)
    field = MapField("m", torch.randn(1, *mask.shape))
    fine = _context(mask, spacing=(0.02,) * rank)
    assert "whole image lies within 5 mm" in reason(name, field, fine)
    (distance,) = FAR[name]
    assert reason(name, field, fine, **{distance: 0.02}) == ""


@pytest.mark.parametrize(("touch", "hits"), [(0.1, 1), (0.2, 1), (0.21, 0), (1.0, 0)])
def test_a_lesion_is_hit_from_the_asked_share_on(touch: float, hits: int) -> None:
    mask = torch.zeros(9, 9, dtype=torch.bool)
    mask[2, 1:6] = mask[3, 1:6] = True  # 10 voxels
    values = torch.linspace(-1, -2, 81).view(1, 9, 9).clone()
    values[0, 2, 1:3] = 1
    field = MapField("m", values)
    result = value("lesion_hit_rate", field, _context(mask), factor=0.2, touch=touch)
    assert result.facts == {"lesions": 1, "hits": hits, "false_positives": 0}


@pytest.mark.parametrize("rank", [2, 3])
def test_equal_values_are_ranked_by_chance(rank: int) -> None:
    """Not by their place: where nothing is marked, first and last voxels are hit alike."""
    mask, hits = torch.zeros((8,) * rank, dtype=torch.bool), []
    mask[: 8 // 2] = True  # the half that is stored first
    values = torch.zeros(1, *mask.shape)
    values[(0, *(7,) * rank)] = 1e-9
    for key in range(30):
        field = MapField("m", values, key=str(key))
        assert field.order[0] == values.numel() - 1
        hits.append(value("top_k_intersection", field, _context(mask), share=0.25).value)
    assert np.mean(hits) == pytest.approx(0.5, abs=0.06)
    again = MapField("m", values, key="0")
    assert torch.equal(again.order, MapField("m", values, key="0").order)
    assert not torch.equal(again.order, MapField("n", values, key="0").order)
