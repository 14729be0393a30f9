"""RISE and MC-RISE against their definitions, and perturbation methods on a known lesion."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import assert_close, classifier, images, segmenter
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.engine.masks.dense import Grids

every_rank = pytest.mark.parametrize("rank", [2, 3])


def _recorded(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The masks that were drawn, in order."""
    drawn: list[Tensor] = []
    weights = Grids.weights

    def record(self: Grids, index: int, like: Tensor) -> Tensor:
        drawn.append(weights(self, index, like))
        return drawn[-1]

    monkeypatch.setattr(Grids, "weights", record)
    return drawn


@every_rank
@pytest.mark.parametrize("build", [classifier, segmenter])
def test_rise_is_its_definition(rank: int, build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """sum S(x m + (1 - m) b) m / sum m over the masks that were drawn."""
    network, inputs = build(rank, 2).double(), images(rank, 2).double()
    target = 1 if build is classifier else {"kind": "region", "label": 1, "box": [[1, 4]] * rank}
    drawn = _recorded(monkeypatch)
    spec = {"name": "rise", "samples": 30, "cells": 3, "fill": 0.5}
    rise = explain(network, inputs, spec, target)["rise"]
    actual = rise.map[0, 0] + rise.stats.findings[0]["mean_score"]
    masks = torch.stack(drawn)
    assert len(masks) == 30
    with torch.no_grad():
        columns = masks[:, None]
        output = network(inputs * columns + 0.5 * (1 - columns))
    box = (slice(1, 4),) * rank
    scores = output[:, 1] if build is classifier else output[:, 1][(..., *box)].flatten(1).sum(1)
    expected = torch.einsum("n,n...->...", scores, masks) / masks.sum(0)
    assert_close(actual, expected, 1e-11)
    assert rise.stats.findings[0]["mean_score"] == pytest.approx(float(scores.mean()))


def test_an_offset_of_the_score_does_not_dominate_the_map() -> None:
    """Scores of segmentations are sums over many voxels."""
    network, inputs = classifier(2).double(), images(2).double()
    spec = {"name": "rise", "samples": 40}
    plain = explain(network, inputs, spec, 1)["rise"].map
    with torch.no_grad():
        network.head.bias += 2.0**30
    assert_close(explain(network, inputs, spec, 1)["rise"].map, plain, 1e-5)
    assert float(plain.amin()) < 0 < float(plain.amax())


class Lesion(nn.Module):
    """The score is the brightness of one region."""

    def __init__(self, place: tuple[slice, ...], shape: tuple[int, ...]) -> None:
        super().__init__()
        weight = torch.zeros(shape)
        weight[place] = 1
        self.register_buffer("weight", weight / weight.sum())

    def forward(self, image: Tensor) -> Tensor:
        score = (image[:, 0] * self.weight).flatten(1).sum(1, keepdim=True)
        return torch.cat([-score, score], dim=1)


METHODS: tuple[dict[str, Any], ...] = (
    {"name": "occlusion", "fill": "mean"},
    {"name": "occlusion", "fill": "noise", "label": "occlusion with noise"},
    {"name": "feature_ablation"},
    {"name": "rise", "samples": 500},
)


@every_rank
def test_a_planted_lesion_is_found(rank: int) -> None:
    """The maximum lies inside, and values inside exceed the others almost everywhere."""
    shape, place = (24, 20, 18)[:rank], (slice(5, 9), slice(12, 16), slice(3, 7))[:rank]
    torch.manual_seed(1)
    inputs = 0.1 * torch.randn(1, 1, *shape)
    inputs[(..., *place)] += 2
    inside = torch.zeros(shape, dtype=torch.bool)
    inside[place] = True
    attributions = explain(Lesion(place, shape), inputs, METHODS, 1)
    for key, attribution in attributions.items():
        values = attribution.map[0, 0]
        assert bool(inside.view(-1)[values.argmax()]), key
        lesion, rest = values[inside], values[~inside]
        share = (
            (lesion[:, None] > rest[None]).double().mean() if lesion.numel() else torch.zeros(())
        )
        assert float(share) > 0.95, f"{key}: {float(share):.3f}"


def test_occlusion_of_a_linear_score_is_known() -> None:
    """A voxel gets the mean, over its boxes, of <w, x> inside the box."""
    weight, inputs = torch.rand(8, 8), torch.randn(1, 1, 8, 8)

    class Weighted(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return (image[:, 0] * weight).flatten(1).sum(1, keepdim=True)

    spec = {"name": "occlusion", "window": 4, "stride": 2, "fill": 0}
    actual = explain(Weighted(), inputs, spec, 1)["occlusion"].map[0, 0]
    total, count = torch.zeros(8, 8), torch.zeros(8, 8)
    for row in range(0, 6, 2):
        for column in range(0, 6, 2):
            box = (slice(row, row + 4), slice(column, column + 4))
            total[box] += (weight * inputs[0, 0])[box].sum()
            count[box] += 1
    assert_close(actual, total / count, 1e-5)


@every_rank
def test_mc_rise_is_one_rise_per_fill(rank: int) -> None:
    network, inputs = classifier(rank, 3), images(rank, 3)
    few = {"samples": 6, "cells": 3}
    fills = (0, "mean", "blur", "noise")
    attribution = explain(network, inputs, {"name": "mc_rise", "fills": fills, **few}, 1)["mc_rise"]
    for channel, fill in enumerate(fills):
        alone = explain(network, inputs, {"name": "rise", "fill": fill, **few}, 1)["rise"]
        assert torch.equal(attribution.map[:, channel], alone.map[:, 0])
    names = ("hidden by 0.0", "hidden by mean", "hidden by blur", "hidden by noise")
    assert attribution.channels == names
    for name in names:
        assert f"mean_score {name}" in attribution.stats.findings[0]


def test_mc_rise_of_three_channels_is_not_named_by_them() -> None:
    """Three fills for an image of three channels, on a shared stream with RISE."""
    network, inputs = classifier(2, 3), images(2, 3)
    specs = [{"name": "mc_rise", "samples": 3}, {"name": "rise", "samples": 3, "fill": "minimum"}]
    attributions = explain(network, inputs, specs, 1)
    assert attributions["mc_rise"].channels[0] == "hidden by minimum"
    assert attributions["rise"].stats.shared_with == ("mc_rise",)
    assert torch.equal(attributions["rise"].map[:, 0], attributions["mc_rise"].map[:, 0])
    summed = {"name": "mc_rise", "samples": 3, "channels": "sum"}
    assert explain(network, inputs, summed, 1)["mc_rise"].channels == ("all channels",)
