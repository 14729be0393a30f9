"""Where Quantus is right, 2-D classification with one channel, voxplain agrees with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from every_metric import lesion
from injected import GivenCorrelation
from metric_cases import metric_context, value
from networks import classifier, images
from numpy.typing import NDArray
from torch import Tensor

from voxplain.metrics import MapField, MetricContext

quantus = pytest.importorskip("quantus", exc_type=ImportError)

Array = NDArray[np.float32]
CALL: dict[str, Any] = {"abs": False, "normalise": False, "disable_warnings": True}
LABEL = {"kind": "class_score", "label": 1}
IMAGE = images(2, 1, 1)
MAP = torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(1))


def _context(mask: Tensor | None = None) -> MetricContext:
    return metric_context(classifier(), IMAGE[0], target=LABEL, mask=mask)


def _theirs(metric: Any, values: Tensor = MAP, mask: Tensor | None = None) -> Any:
    (scores,) = metric(
        model=classifier(),
        x_batch=IMAGE.numpy(),
        y_batch=np.array([1]),
        a_batch=values[None].numpy(),
        s_batch=None if mask is None else mask[None, None].numpy().astype(bool),
        device="cpu",
        channel_first=True,
        softmax=False,
    )
    return scores


def _filled(level: float) -> Callable[..., Array]:
    def fill(arr: Array, indices: Array, **_: Any) -> Array:
        changed = arr.copy()
        changed[np.arange(len(arr))[:, None], indices] = level
        return changed

    return fill


@pytest.mark.parametrize("step", [1, 4])
def test_the_curve_of_pixel_flipping(step: int) -> None:
    metric = quantus.PixelFlipping(
        features_in_step=step, perturb_func=_filled(0.3), perturb_func_kwargs={}, **CALL
    )
    context, field = _context(), MapField("m", MAP)
    mine = value("pixel_flipping", field, context, fill=0.3, levels=36 // step)
    scores = context.score - np.array([drop for _, drop in mine.curve])
    assert scores[1:] == pytest.approx(np.array(_theirs(metric)), rel=1e-5, abs=1e-6)


def test_faithfulness_correlation() -> None:
    draws, size = 30, 9
    np.random.seed(3)
    subsets = torch.zeros(draws, 36, dtype=torch.bool)
    for row in subsets:
        row[np.random.choice(36, size, replace=False)] = True
    metric = quantus.FaithfulnessCorrelation(
        nr_runs=draws,
        subset_size=size,
        perturb_func=_filled(0.0),
        perturb_func_kwargs={},
        return_aggregate=False,
        **CALL,
    )
    np.random.seed(3)
    expected = _theirs(metric)
    metric = GivenCorrelation(subsets=subsets, regions={"kind": "blocks", "size": 1}, fill="zero")
    assert value(metric, MapField("m", MAP), _context()).value == pytest.approx(expected, abs=1e-5)


def test_sparseness() -> None:
    """Theirs adds 1e-7 to every value."""
    mine = value("sparseness", MapField("m", MAP), _context()).value
    assert mine == pytest.approx(_theirs(quantus.Sparseness(**{**CALL, "abs": True})), abs=1e-5)


def test_entropy() -> None:
    """Theirs is in nats; ours is relative to a map that is the same everywhere."""
    expected = _theirs(quantus.Complexity(**{**CALL, "abs": True}))
    mine = value("entropy", MapField("m", MAP), _context()).value
    assert mine * math.log(36) == pytest.approx(expected, abs=1e-5)


def test_effective_complexity() -> None:
    metric = quantus.EffectiveComplexity(eps=0.5, **{**CALL, "abs": True})
    field = MapField("m", MAP)
    eps = 0.5 / float(MAP.abs().max())  # theirs is no share of the maximum of the image
    mine = value("effective_complexity", field, _context(), eps=eps).value
    assert mine * 36 == _theirs(metric)


@pytest.mark.parametrize("seed", range(6))
def test_localization(seed: int) -> None:
    mask = lesion(2).bool()
    values = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(seed)) + 0.1
    values[0, 1:3, 1:3] += 0.5
    context, field = _context(mask), MapField("m", values)
    pairs = {
        "relevance_rank_accuracy": quantus.RelevanceRankAccuracy,
        "relevance_mass_accuracy": quantus.RelevanceMassAccuracy,
        "roc_auc": quantus.AUC,
    }
    for name, metric in pairs.items():
        mine = value(name, field, context).value
        assert mine == pytest.approx(float(_theirs(metric(**CALL), values, mask)), abs=1e-5), name
    top = quantus.TopKIntersection(k=9, **CALL)
    mine = value("top_k_intersection", field, context, share=0.25).value
    assert mine == pytest.approx(float(_theirs(top, values, mask)), abs=1e-5)


@pytest.mark.parametrize("place", [(1, 2), (5, 5)])
def test_the_pointing_game(place: tuple[int, int]) -> None:
    """Ours tolerates a voxel diagonal, so that places next to the mask are left out."""
    mask, values = lesion(2).bool(), MAP.clone()
    values[(0, *place)] = 9
    expected = _theirs(quantus.PointingGame(**CALL), values, mask)
    mine = value("pointing_game", MapField("m", values), _context(mask), tolerance=0).value
    assert mine == float(np.asarray(expected))
