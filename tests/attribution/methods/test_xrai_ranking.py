"""Ranking of segments against PAIR's code and against the definition, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from saliency.core.xrai import XRAI
from scipy import ndimage
from scipy.stats import spearmanr

from voxplain.attribution.methods.xrai import Mode, rank_segments
from voxplain.errors import InputError
from voxplain.regions import Segments

Masks = NDArray[np.bool_]


def bumpy(shape: tuple[int, ...], seed: int, sigma: float = 2.0) -> NDArray[np.float64]:
    """A smooth signed map."""
    noise = np.random.default_rng(seed).normal(size=shape)
    return np.asarray(ndimage.gaussian_filter(noise, sigma) + 0.02 * noise)


def overlapping(shape: tuple[int, ...], seed: int) -> Masks:
    """Dilated segments of three divisions of the image, some of which leave voxels uncovered."""
    random = np.random.default_rng(seed)
    actual = []
    for count in (5, 12, 30):
        points = np.stack([random.uniform(0, size, count) for size in shape])
        axes = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
        away = axes[:, None] - points.reshape(len(shape), count, *(1,) * len(shape))
        nearest = np.square(away).sum(axis=0).argmin(axis=0)
        actual += [ndimage.binary_dilation(nearest == each, iterations=2) for each in range(count)]
    return np.stack(actual[2:])


def direct(attribution_map: NDArray[np.float64], masks: Masks, minimum: int) -> NDArray[np.float64]:
    """The definition of ``full``: all candidates are compared again after every step."""
    values, covered = np.full(attribution_map.shape, np.nan), np.zeros(attribution_map.shape, bool)
    while True:
        new = [mask & ~covered for mask in masks]
        fit = [part for part in new if part.sum() >= minimum]
        if not fit:
            break
        best = max(fit, key=lambda part: attribution_map[part].mean())
        values[best] = attribution_map[best].mean()
        covered |= best
    values[~covered] = attribution_map[~covered].mean() if (~covered).any() else 0
    return values


@pytest.mark.parametrize("mode", ["full", "fast"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ranks_as_pair_does_with_its_segments(mode: Mode, seed: int) -> None:
    attribution_map = bumpy((60, 48), seed)
    masks = overlapping(attribution_map.shape, seed)
    reference = XRAI._xrai if mode == "full" else XRAI._xrai_fast
    values, ranks = reference(attr=attribution_map, segs=list(masks), min_pixel_diff=40)
    actual = rank_segments(torch.from_numpy(attribution_map), Segments.given(masks), 40, mode)
    assert np.allclose(actual.map.numpy(), values, atol=1e-12)
    assert spearmanr(actual.map.numpy().ravel(), values.ravel()).statistic > 0.99
    assert np.array_equal(actual.ranks.numpy(), ranks)


@pytest.mark.parametrize("shape", [(30, 41), (14, 12, 17)])
@pytest.mark.parametrize("minimum", [1, 25])
def test_running_sums_are_the_direct_definition(shape: tuple[int, ...], minimum: int) -> None:
    values = bumpy(shape, 5)
    masks = overlapping(shape, 6)
    actual = rank_segments(torch.from_numpy(values), Segments.given(masks), minimum).map.numpy()
    assert np.allclose(actual, direct(values, masks, minimum), atol=1e-12)
    assert len(np.unique(actual)) > 5


@pytest.mark.parametrize("mode", ["full", "fast"])
def test_the_sum_of_the_map_is_kept(mode: Mode) -> None:
    values = torch.from_numpy(bumpy((20, 16, 12), 3)) + 0.1
    actual = rank_segments(values, Segments.given(overlapping((20, 16, 12), 3)), 30, mode)
    assert float(actual.map.sum()) == pytest.approx(float(values.sum()))


def test_ranks_go_down_with_the_map_and_what_is_uncovered_comes_last() -> None:
    values = torch.tensor([[5.0, 5.0, 1.0, 1.0, 9.0, 7.0]])
    labels = np.array([[[1, 1, 0, 0, -1, -1]]])
    actual = rank_segments(values, Segments.given(labels), 1)
    assert actual.map.tolist() == [[5, 5, 1, 1, 8, 8]]
    assert actual.ranks.tolist() == [[1, 1, 2, 2, 3, 3]]


def test_a_segment_that_adds_too_little_is_skipped() -> None:
    values = torch.tensor([[9.0, 3.0, 3.0, 1.0]])
    masks = np.array([[[1, 0, 0, 0]], [[1, 1, 1, 0]], [[0, 0, 1, 1]]], dtype=bool)
    assert rank_segments(values, Segments.given(masks), 1).map.tolist() == [[9, 3, 3, 1]]
    assert rank_segments(values, Segments.given(masks), 2).map.tolist() == [[5, 5, 5, 1]]


def test_labels_and_masks_are_the_same_segments() -> None:
    labels = np.random.default_rng(0).integers(-1, 4, (2, 9, 8))
    masks = np.stack([one == value for one in labels for value in range(4)])
    values = torch.from_numpy(bumpy((9, 8), 1))
    both = [rank_segments(values, Segments.given(each), 3).map for each in (labels, masks)]
    assert torch.equal(*both)


def test_cells_are_as_few_as_the_overlaps() -> None:
    masks = np.zeros((2, 10, 10), bool)
    masks[0, :6], masks[1, 4:] = True, True
    segments = Segments.given(masks)
    assert segments.count == 2
    assert segments.members.shape == (2, 3)
    assert sorted(segments.sizes) == [20, 40, 40]


@pytest.mark.parametrize("wrong", [np.zeros((2, 4, 4)), np.zeros((0, 4, 4), bool), np.ones(3, int)])
def test_what_is_no_segment_is_said(wrong: NDArray[np.generic]) -> None:
    with pytest.raises(InputError, match="segment"):
        Segments.given(wrong)
