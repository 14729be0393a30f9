"""Ranked removal: painted images, regions by their mean, seeded ties."""

from __future__ import annotations

import random

import pytest
import torch
from metric_cases import LinearClasses, ask, bright, value

from voxplain.attribution.masking import Constant
from voxplain.metrics import MapField
from voxplain.metrics.removal import Ranked, Removal


@pytest.mark.parametrize("rank", [2, 3])
def test_rows_are_painted_forth_and_back(rank: int) -> None:
    image, filled = bright(rank, 2, 4), torch.full((2, *(4,) * rank), -1.0, dtype=torch.float64)
    order = torch.randperm(4**rank)
    counts = (0, 3, 7, 4**rank)
    painter = Ranked(order, counts, (4,) * rank).painter(image, filled)
    picks = [random.Random(seed).sample(range(4), 3) for seed in range(6)]
    for pick in picks:
        for index, painted in zip(pick, painter.painted(pick), strict=True):
            expected = image.clone()
            expected.flatten(1)[:, order[: counts[index]]] = -1
            assert torch.equal(painted, expected)


@pytest.mark.parametrize("rank", [2, 3])
def test_masks_say_what_they_remove(rank: int) -> None:
    order = torch.randperm(4**rank)
    masks = Ranked(order, (0, 3), (4,) * rank)
    assert int(masks.removed(0).sum()) == 0
    assert set(masks.removed(1).flatten().nonzero()[:, 0].tolist()) == set(order[:3].tolist())


def test_regions_go_by_their_mean_and_not_by_their_size() -> None:
    """A large region of weak evidence goes after a small one of strong evidence."""
    labels = torch.zeros(4, 4, dtype=torch.long)
    labels[0, 0], labels[3, 3] = 1, 2
    map = torch.full((1, 4, 4), 1.0, dtype=torch.float64)
    map[0, 0, 0], map[0, 3, 3] = 5.0, 0.5
    network, image = LinearClasses((1, 4, 4)), torch.ones(1, 4, 4).double()
    with torch.no_grad():
        network.weight[1] = map
    found = value(
        "irof",
        MapField("m", map),
        ask(network, image),
        regions={"kind": "labels", "labels": labels},
        fill="zero",
    )
    left = torch.tensor([19.5, 14.5, 0.5, 0]) / 19.5
    assert [y for _, y in found.curve] == pytest.approx(left.tolist())
    assert found.value == pytest.approx(1 - float(torch.trapezoid(left, dx=1 / 3)))


def test_equal_values_go_in_an_order_of_their_own() -> None:
    """Not in that of memory, which would be a map from one side to the other."""
    map = torch.zeros(1, 8, 8)
    map[0, 0, 0] = 1
    orders = [MapField("m", map, key=str(n)).order for n in range(20)]
    for order in orders:
        assert order[0] == 0
        assert sorted(order.tolist()) == list(range(64))
    assert len({tuple(order.tolist()) for order in orders}) == 20
    assert torch.equal(orders[0], MapField("m", map, key="0").order)
    second = torch.stack(orders)[:, 1].double()
    assert 15 < float(second.mean()) < 48


def test_removed_shares_may_be_named() -> None:
    image = bright(2, 1, 4)
    question = ask(LinearClasses((1, 4, 4)), image)
    field = MapField("m", torch.randn(1, 4, 4))
    asked = Removal(Constant(value="zero"), at=(0.25, 1.0))
    found = question.answer(asked, field)
    assert len(found.scores) == asked.expected(question.scene) == 2
    left = image.clone()
    left.view(-1)[field.order[:4]] = 0
    weight = question.scene.model.network.weight.detach()[1]
    assert float(found.scores[0]) == pytest.approx(float((weight * left).sum()) + 1)
