"""What metrics hold at once does not grow with their steps, draws and neighbors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from voxplain.attribution import explain
from voxplain.metrics import evaluate
from voxplain.metrics.families import robustness

SIDE = 20
VOLUME = 4 * SIDE**3


def peak(run: Callable[[], object]) -> int:
    """Most bytes that torch held at once during a call, beyond what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    held = most = 0
    events = profiled.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def growth(few: dict[str, Any], many: dict[str, Any]) -> float:
    """By how many arrays of the size of the image the peak is higher for the second metric."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 2, 3, padding=1)
    ).eval()
    image, target = torch.rand(1, 1, SIDE, SIDE, SIDE), {"kind": "volume", "label": 1}
    maps = explain(network, image, ["saliency", "input_x_gradient"], target)

    def score(metric: dict[str, Any]) -> object:
        return evaluate(network, image, maps, [metric], target, controls=False)

    score(few)
    low, high = (peak(lambda: score(metric)) for metric in (few, many))  # noqa: B023
    return (high - low) / VOLUME


@pytest.fixture(autouse=True)
def two_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches take two images, however small."""
    monkeypatch.setattr("voxplain.engine.memory._FORWARD_CACHE", 0)


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("deletion", "levels"),
        ("insertion", "levels"),
        ("infidelity", "draws"),
        ("faithfulness_correlation", "draws"),
    ],
)
def test_more_steps_hold_no_more(
    name: str, parameter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxplain.metrics.queries.subsets._NOISE_BYTES", 8 * VOLUME)
    few, many = ({"name": name, parameter: steps} for steps in (16, 128))
    assert growth(few, many) < 4


def test_more_neighbors_hold_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """One neighbor has ten arrays of its own: image, gradient, maps, their sums."""
    monkeypatch.setattr(robustness, "_NEIGHBORS_BYTES", 12 * VOLUME)
    few, many = ({"name": "max_sensitivity", "draws": draws} for draws in (4, 32))
    assert growth(few, many) < 4
