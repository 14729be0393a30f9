"""Shapley values of input channels."""

from __future__ import annotations

import pytest
import torch
from networks import Linear, images, segmenter
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.image import Grid, Image

FIRST = {"kind": "class_score", "label": 0}


class Mixed(nn.Module):
    """A product of two channel sums, a third channel alone, and a fourth that does nothing."""

    def forward(self, image: Tensor) -> Tensor:
        sums = image.flatten(2).sum(dim=2)
        worth = sums[:, 0] * sums[:, 1] + 2 * sums[:, 2]
        return torch.stack([worth, torch.zeros_like(worth)], dim=1)


@pytest.mark.parametrize("rank", [2, 3])
def test_a_linear_network(rank: int) -> None:
    """The value of a channel is the sum of w (x - fill) over it."""
    image = images(rank, 4, 2).double()
    network = Linear(tuple(image.shape[1:])).double()
    spec = {"name": "channel_share", "fill": 0.2}
    attribution = explain(network, image, spec, {"kind": "class_score", "label": 1})[
        "channel_share"
    ]
    effect = ((image - 0.2) * network.weight.detach()).flatten(2).sum(dim=2)
    expected = effect.view(2, 4, *(1,) * rank).expand_as(image)
    torch.testing.assert_close(attribution.map.double(), expected, rtol=1e-6, atol=1e-6)
    assert max(attribution.stats.completeness) < 1e-9
    for row, values in zip(attribution.stats.findings, effect.tolist(), strict=True):
        shares = [row["share_percent"][f"channel {number}"] for number in range(4)]
        whole = sum(map(abs, values))
        assert shares == pytest.approx([100 * value / whole for value in values])
        assert sum(map(abs, shares)) == pytest.approx(100)
    assert attribution.stats.passes == 15


def test_what_two_channels_earn_together_is_halved() -> None:
    image = images(2, 4, 1).double()
    sums = image.flatten(2).sum(dim=2)[0]
    spec = {"name": "channel_share", "fill": 0}
    actual = explain(Mixed(), image, spec, FIRST)["channel_share"].map[0, :, 0, 0]
    half = sums[0] * sums[1] / 2
    expected = torch.stack([half, half, 2 * sums[2], 0 * half])
    torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=1e-6)


def test_channels_are_called_by_their_names() -> None:
    names = ("flair", "t1", "t1ce", "t2")
    image = Image(images(3, 4)[0], Grid.default((6, 6, 6)), channels=names)
    attribution = explain(Mixed(), image, "channel_share", FIRST)["channel_share"]
    findings = attribution.stats.findings[0]
    assert set(findings["share_percent"]) == set(names)
    assert {one["name"] for one in findings["regions"]} == set(names)
    listed = {one["name"]: one["value"] for one in findings["regions"]}
    painted = dict(zip(names, attribution.map[:, 0, 0, 0].tolist(), strict=True))
    assert listed == pytest.approx(painted, rel=1e-5)


def test_up_to_twelve_channels_are_exact() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    image = images(2, 6, 1, size=1).double()
    attributions = explain(network.eval(), image, {"name": "channel_share", "fill": 0}, FIRST)
    regions = torch.arange(1, 7).view(6, 1, 1)
    spec = {"name": "shapley_exact", "fill": 0, "regions": {"kind": "labels", "labels": regions}}
    exact = explain(network, image, spec, FIRST)["shapley_exact"]
    assert attributions["channel_share"].stats.passes == 63
    torch.testing.assert_close(attributions["channel_share"].map, exact.map)


def test_many_channels_are_walked() -> None:
    """Beyond twelve channels orders are sampled; a linear score stays exact."""
    image = images(2, 14, 1).double()
    network = Linear(tuple(image.shape[1:])).double()
    spec = {"name": "channel_share", "fill": 0}
    attribution = explain(network, image, spec, {"kind": "class_score", "label": 1})[
        "channel_share"
    ]
    effect = (image[0] * network.weight.detach()).flatten(1).sum(dim=1)
    torch.testing.assert_close(attribution.map[0, :, 0, 0].double(), effect, rtol=1e-5, atol=1e-5)
    assert 200 < attribution.stats.passes <= 25 * 13 + 1  # coalitions that recur run once


def test_all_of_one_channel() -> None:
    network, image = segmenter(2, 1), images(2, 1)
    target = {"kind": "pixelwise", "label": 1}
    attribution = explain(network, image, {"name": "channel_share", "fill": 0}, target)[
        "channel_share"
    ]
    with torch.no_grad():
        output = network(image)
        inside = output.argmax(dim=1) == 1
        change = (output[:, 1] - network(0 * image)[:, 1])[inside].sum()
    assert attribution.map.unique().tolist() == pytest.approx([float(change)], rel=1e-5)
    assert list(attribution.stats.findings[0]["share_percent"].values()) == pytest.approx(
        [100 * float(change.sign())]
    )
