"""Scores from counts against libraries, and what must never be 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from voxplain.concepts.dissection.agreement import Agreement, chosen_threshold
from voxplain.concepts.dissection.case_masks import combinations
from voxplain.concepts.dissection.histograms import Thresholds, joint_histograms, reaching
from voxplain.concepts.dissection.image_level import area_above, average_precision
from voxplain.concepts.dissection.nulls import pooled_p
from voxplain.concepts.dissection.quantiles import VoxelSample, shares_on


def values_and_masks(units: int = 3, voxels: int = 500) -> tuple[torch.Tensor, np.ndarray]:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(units, voxels, generator=generator).mul(100).round() / 100
    masks = (torch.rand(20, voxels, generator=generator) < 0.2).numpy()
    return values, masks


def agreements() -> tuple[Agreement, np.ndarray, np.ndarray]:
    """Of one concept, at every value that occurs."""
    values, masks = values_and_masks()
    edges = values.sort(dim=1).values
    bins = Thresholds(edges).bins(slice(None), values.numpy())
    inside, everywhere = joint_histograms(bins, combinations(masks), edges.shape[1])
    both, on = reaching(inside[:, 7]), reaching(everywhere)
    size, total = float(masks[7].sum()), float(masks.shape[1])
    return Agreement(both, on, size, total), values.double().numpy(), masks[7]


def test_histograms_count_every_concept_and_unit() -> None:
    values, masks = values_and_masks()
    edges = values.sort(dim=1).values[:, ::50].contiguous()
    bins = Thresholds(edges).bins(slice(None), values.numpy())
    inside, everywhere = joint_histograms(bins, combinations(masks), edges.shape[1])
    is_on = values[:, None] >= edges[:, :, None]
    assert np.array_equal(reaching(everywhere), is_on.sum(-1).numpy())
    for number, mask in enumerate(masks):
        assert np.array_equal(reaching(inside[:, number]), is_on[..., mask].sum(-1).numpy())


@pytest.mark.parametrize("offset", [0.0, -3.0, 1e6])
def test_the_table_finds_the_bins_of_bisection(offset: float) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 3000, generator=generator) + offset
    values[0] = values[0].relu()
    edges = values.sort(dim=1).values[:, ::11].contiguous()
    more = torch.cat([values, edges, torch.tensor([[torch.inf, -torch.inf, -0.0]] * 2)], dim=1)
    expected = torch.searchsorted(edges, more, right=True).numpy()
    assert np.array_equal(Thresholds(edges).bins(slice(None), more.numpy()), expected)


def test_areas_are_those_of_the_definitions() -> None:
    agreement, values, truth = agreements()
    for unit, row in enumerate(values):
        positive, negative = row[truth], row[~truth]
        u = stats.mannwhitneyu(positive, negative).statistic
        assert agreement.auc[unit] == pytest.approx(u / (len(positive) * len(negative)))
        assert agreement.auc[unit] == pytest.approx(
            area_above(positive[:, None], negative[:, None])[0]
        )
        expected = average_precision(row[:, None], truth)[0]
        assert agreement.average_precision[unit] == pytest.approx(expected)


def test_average_precision_is_that_of_its_formula() -> None:
    values, holds = np.array([[4.0], [3], [2], [1]]), np.array([True, False, True, False])
    assert average_precision(values, holds) == pytest.approx([(1 + 2 / 3) / 2])


def test_information_is_that_of_the_table() -> None:
    agreement, values, truth = agreements()
    threshold = 200
    is_on = values[0] >= np.sort(values[0])[threshold]
    table = np.histogram2d(is_on, truth, bins=2)[0] / len(truth)
    independent = table.sum(1, keepdims=True) * table.sum(0, keepdims=True)
    expected = float((table * np.log2(table / independent)).sum())
    assert agreement.information[0, threshold] == pytest.approx(expected)
    entropy = -sum(p * np.log2(p) for p in (truth.mean(), 1 - truth.mean()))
    same = Agreement(*(np.array([[float(truth.sum())]]),) * 2, float(truth.sum()), len(truth) * 1.0)
    assert same.information[0, 0] == pytest.approx(entropy)


def test_empty_masks_and_constant_units_have_no_agreement() -> None:
    nothing = np.zeros((1, 1))
    empty = Agreement(nothing, nothing, 0.0, 100.0)
    assert np.isnan(empty.iou).all()
    assert np.isnan(empty.dice).all()
    assert np.isnan(empty.average_precision).all()
    constant = Agreement(np.array([[20.0, 0.0]]), np.array([[100.0, 0.0]]), 20.0, 100.0)
    filled = Agreement(np.array([[100.0]]), np.array([[100.0]]), 100.0, 100.0)
    for each in (constant, filled, empty):
        for rule in ("max_iou", "max_information", "fixed_quantile"):
            assert chosen_threshold(each, rule, 0.1).tolist() == [-1]  # type: ignore[arg-type]


def test_thresholds_are_the_best_of_their_rule() -> None:
    agreement, _, _ = agreements()
    at = chosen_threshold(agreement, "max_iou", 0.1)
    below_all = agreement.on < agreement.total
    assert np.allclose(
        agreement.iou[range(3), at], np.where(below_all, agreement.iou, 0).max(axis=1)
    )
    at = chosen_threshold(agreement, "fixed_quantile", 0.1)
    assert agreement.on[range(3), at] / agreement.total == pytest.approx(0.1, abs=0.01)


def test_quantiles_of_all_cases_are_exact_while_they_fit_and_close_beyond() -> None:
    on = shares_on(0.07)
    assert len(on) == 256
    assert 0.07 in on
    assert (np.diff(on) < 0).all()
    parts = [torch.randn(2, 900, generator=torch.Generator().manual_seed(n)) for n in range(4)]
    together = torch.cat(parts, dim=1)
    for capacity, tolerance in ((10_000, 1 / 3600), (1500, 0.05)):
        edges = []
        for order in (range(4), reversed(range(4))):
            sample = VoxelSample(0, capacity)
            for number in order:
                drawn = sample.draw(f"case{number}", 900)
                sample.add("units", parts[number][:, drawn])
            edges.append(sample.edges("units", on))
        assert torch.equal(*edges)
        shares = (together[:, None] >= edges[0][:, :, None]).double().mean(-1).numpy()
        assert np.abs(shares - on).max() <= tolerance


def test_p_values_are_ranks_among_the_null() -> None:
    null = np.arange(200.0).reshape(2, 1, 100) / 200
    p = pooled_p(np.array([[0.995], [2.0]]), null)
    assert p[:, 0] == pytest.approx([2 / 201, 1 / 201])
    assert np.isnan(pooled_p(np.array([[np.nan], [0.0]]), null)[0, 0])
