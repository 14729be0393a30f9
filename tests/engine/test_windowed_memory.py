"""The memory of a windowed run: one batch of windows, and some arrays of the volume itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from voxplain.attribution import explain
from voxplain.models.model import Model

CLASSES = 2


def network() -> nn.Module:
    """Features 32 times as large as its input."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(1, 32, 3, padding=1), nn.ReLU(),
        nn.Conv3d(32, 32, 3, padding=1), nn.ReLU(),
        nn.Conv3d(32, CLASSES, 1),
    ).eval()  # fmt: skip


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


def arrays_per_volume(method: Any, target: Any, window: Any, lengths: tuple[int, int]) -> float:
    """How many arrays of the size of the image a longer volume adds to the peak."""
    peaks = []
    for length in lengths:
        shape = (1, 1, length, 8, 8)
        image, references = torch.rand(shape), torch.rand(3, *shape[1:])
        model = Model(network(), window=window)
        peaks.append(peak(lambda: explain(model, image, method, target, references=references)))  # noqa: B023
    volume = (lengths[1] - lengths[0]) * 8 * 8 * 4
    return (peaks[1] - peaks[0]) / volume


METHODS: list[Any] = [
    "saliency",
    "guided_backprop",
    "deep_lift",
    {"name": "integrated_gradients", "steps": 9},
    {"name": "expected_gradients", "samples": 9},
    {"name": "smoothgrad", "of": "saliency", "samples": 9},
    {"name": "smoothgrad", "of": {"name": "integrated_gradients", "steps": 6}, "samples": 2},
    "deep_lift_shap",
]
WINDOW = {"size": 8, "overlap": 0.5, "batch": 1}
OWN_ARRAYS = 25


@pytest.mark.parametrize(
    ("method", "kind"),
    [*((method, "volume") for method in METHODS), ("saliency", "pixelwise")],
    ids=str,
)
def test_peak_memory_does_not_grow_with_the_volume(method: Any, kind: str) -> None:
    """Image, references, output, weights, cotangent, gradient, sum: each once or twice.

    Activations of the volume would be 64 arrays more, and every sample two.
    """
    target = {"kind": kind, "label": 1}
    assert arrays_per_volume(method, target, WINDOW, (32, 96)) < OWN_ARRAYS


def test_the_measurement_includes_activations_and_results() -> None:
    """Without windows the same run holds the features of the whole volume."""
    target = {"kind": "volume", "label": 1}
    assert arrays_per_volume("saliency", target, None, (96, 192)) > 64
    held = peak(lambda: torch.ones(1000) + torch.ones(1000))
    assert held == 12_000
