"""Sidecars say what was used where parameters leave it open."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from voxplain import explain


def network(rank: int) -> nn.Module:
    torch.manual_seed(0)
    convolution = nn.Conv2d if rank == 2 else nn.Conv3d
    pool = nn.AdaptiveAvgPool2d if rank == 2 else nn.AdaptiveAvgPool3d
    layers = [convolution(1, 3, 3, padding=1), nn.ReLU(), convolution(3, 4, 3), nn.ReLU()]
    return nn.Sequential(*layers, pool(1), nn.Flatten(), nn.Linear(4, 2)).eval()


@pytest.mark.parametrize("rank", [2, 3])
def test_the_layer_of_a_cam_is_named_also_where_it_is_the_default(rank: int) -> None:
    image = torch.rand(1, 1, *(8, 7, 6)[:rank])
    methods: list[Any] = [
        "grad_cam",
        {"name": "grad_cam", "layer": "0", "label": "chosen"},
        {"name": "smoothgrad", "of": "grad_cam", "samples": 2, "label": "noisy"},
        "score_cam",
        "saliency",
        {"name": "layer_activation", "layers": ["0"]},
    ]
    found = explain(network(rank), image, methods, target=1)
    read = {key: attribution[0].sidecar.layer_read for key, attribution in found.items()}
    default = read.pop("grad_cam")
    assert default in ("2", "3")
    assert read == {
        "chosen": "0",
        "noisy": default,
        "score_cam": default,
        "saliency": None,
        "layer_activation": None,
    }


def test_the_precision_is_that_of_the_passes() -> None:
    found = explain(network(2), torch.rand(1, 1, 8, 7), ["saliency", "deep_lift"], target=1)
    for attribution in found.values():
        ran = {stream["precision"] for stream in attribution.stats.streams}
        assert {attribution[0].sidecar.model.precision} == ran
    assert found["saliency"][0].sidecar.model.precision == "float32"
