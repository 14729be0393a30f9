"""Where Quantus is right about cross-case metrics, voxplain agrees with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from test_cross_case import SIDE, FirstVoxels, marks, predicted_as, scored

from voxplain.metrics.families.consistency import coarse

quantus = pytest.importorskip("quantus", exc_type=ImportError)


def _theirs(metric: Any, classes: Sequence[int], maps: np.ndarray[Any, Any]) -> list[float]:
    return [
        float(value)
        for value in metric(
            model=FirstVoxels().eval(),
            x_batch=predicted_as(*classes).numpy(),
            y_batch=np.array(classes),
            a_batch=maps,
            device="cpu",
            channel_first=True,
            softmax=False,
        )
    ]


CALL: dict[str, Any] = {"abs": False, "normalise": False, "disable_warnings": True}


def test_consistency_of_the_reference_library() -> None:
    """Theirs gives 0 to a case whose explanation no other has, and calls lower better."""
    source = torch.Generator().manual_seed(5)
    classes = torch.randint(0, 3, (20,), generator=source).tolist()
    maps = marks(*torch.randint(0, 8, (20,), generator=source).tolist())

    def strongest(flat: np.ndarray[Any, Any]) -> int:
        return int(coarse(torch.from_numpy(flat).view(SIDE, SIDE), 16).argmax())

    theirs = _theirs(quantus.Consistency(discretise_func=strongest, **CALL), classes, maps.numpy())
    mine = scored(classes, maps)
    assert [0 if row.reason else row.value for row in mine] == pytest.approx(theirs, abs=1e-6)
    assert 0 < sum(bool(row.reason) for row in mine) < 10


def test_sufficiency_of_the_reference_library() -> None:
    """On maps of 0 and 1, with the threshold at the quantile of the distances."""
    source = torch.Generator().manual_seed(6)
    classes = torch.randint(0, 2, (16,), generator=source).tolist()
    tops = torch.zeros(16, 1, SIDE, SIDE)
    for values in tops:
        values.flatten()[torch.randperm(12, generator=source)[:6]] = 1
    mine = scored(classes, tops, {"name": "sufficiency", "quantile": 0.2})
    held = tops.flatten(1).double().numpy()
    both = held @ held.T
    distances = (1 - both / (12 - both))[~np.eye(16, dtype=bool)]
    limit = np.quantile(distances, 0.2, method="inverted_cdf")

    def jaccard(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any], V: Any = None) -> float:
        return float(1 - (first * second).sum() / np.maximum(first, second).sum())

    metric = quantus.Sufficiency(threshold=limit / distances.max() + 1e-9, **CALL)
    metric.distance_func = jaccard
    theirs = _theirs(metric, classes, tops.numpy())
    assert [0 if row.reason else row.value for row in mine] == pytest.approx(theirs, abs=1e-6)
    assert len({round(value, 6) for value in theirs}) > 3
