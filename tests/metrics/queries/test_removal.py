"""Ranked removal: painted images, regions by their mean, seeded ties."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from metric_cases import LinearClasses, bright, metric_context, value
from torch import Tensor, nn

from voxplain.engine.masks import Constant
from voxplain.errors import ConfigError
from voxplain.metrics import MapField, MetricContext, parse_metric
from voxplain.metrics.queries.removal import RankedMasks, Removal


@pytest.mark.parametrize("rank", [2, 3])
def test_rows_are_painted_forth_and_back(rank: int) -> None:
    image, filled = bright(rank, 2, 4), torch.full((2, *(4,) * rank), -1.0, dtype=torch.float64)
    order = torch.randperm(4**rank)
    counts = (0, 3, 7, 4**rank)
    painter = RankedMasks(order, counts, (4,) * rank).painter(image, filled)
    picks = [random.Random(seed).sample(range(4), 3) for seed in range(6)]
    for pick in picks:
        for index, painted in zip(pick, painter.painted(pick), strict=True):
            expected = image.clone()
            expected.flatten(1)[:, order[: counts[index]]] = -1
            assert torch.equal(painted, expected)


@pytest.mark.parametrize("rank", [2, 3])
def test_masks_say_what_they_remove(rank: int) -> None:
    order = torch.randperm(4**rank)
    masks = RankedMasks(order, (0, 3), (4,) * rank)
    assert int(masks.removed(0).sum()) == 0
    assert set(masks.removed(1).flatten().nonzero()[:, 0].tolist()) == set(order[:3].tolist())


def test_regions_are_ranked_by_their_mean_and_not_their_sum() -> None:
    """A large region of weak evidence is removed after a small one of strong evidence."""
    labels = torch.zeros(4, 4, dtype=torch.long)
    labels[0, 0], labels[3, 3] = 1, 2
    values = torch.full((1, 4, 4), 1.0, dtype=torch.float64)
    values[0, 0, 0], values[0, 3, 3] = 5.0, 0.5
    network, image = LinearClasses((1, 4, 4)), torch.ones(1, 4, 4).double()
    with torch.no_grad():
        network.weight[1] = values
    result = value(
        "irof",
        MapField("m", values),
        metric_context(network, image),
        regions={"kind": "labels", "labels": labels},
        fill="zero",
    )
    left = torch.tensor([19.5, 14.5, 0.5, 0]) / 19.5
    assert [y for _, y in result.curve] == pytest.approx(left.tolist())
    assert result.value == pytest.approx(1 - float(torch.trapezoid(left, dx=1 / 3)))


def test_equal_values_are_in_random_order() -> None:
    """Not in the order of memory, which would be a map from one side to the other."""
    values = torch.zeros(1, 8, 8)
    values[0, 0, 0] = 1
    orders = [MapField("m", values, key=str(n)).order for n in range(20)]
    for order in orders:
        assert order[0] == 0
        assert sorted(order.tolist()) == list(range(64))
    assert len({tuple(order.tolist()) for order in orders}) == 20
    assert torch.equal(orders[0], MapField("m", values, key="0").order)
    second = torch.stack(orders)[:, 1].double()
    assert 15 < float(second.mean()) < 48


def test_removed_shares_may_be_named() -> None:
    image = bright(2, 1, 4)
    context = metric_context(LinearClasses((1, 4, 4)), image)
    field = MapField("m", torch.randn(1, 4, 4))
    query = Removal(Constant(value="zero"), at=(0.25, 1.0))
    predictions = context.run_map_query(query, field)
    assert len(predictions.scores) == query.cost(context.engine) == 2
    kept = image.clone()
    kept.view(-1)[field.order[:4]] = 0
    weight = context.engine.model.network.weight.detach()[1]
    assert float(predictions.scores[0]) == pytest.approx(float((weight * kept).sum()) + 1)


def _by_hand(context: MetricContext, order: Tensor, counts: Sequence[int], level: float) -> Tensor:
    """One forward per step, each of an image that is filled anew."""
    scores = []
    for count in counts:
        filled = context.input.image.clone()
        filled.flatten(1)[:, order[:count]] = level
        scores.append(context.predict(filled[None]).scores)
    return torch.cat(scores)


@pytest.mark.parametrize("levels", [1, 2, 9, 40])
def test_maps_and_orders_share_their_ends(levels: int) -> None:
    """A step that removes as much as another, nothing or everything is no forward of its own."""
    image = bright(2, 1, 4)
    context = metric_context(Cubes(), image, target={"kind": "class_score", "label": 0})
    fields = [MapField(str(seed), bright(2, 1, 4, seed)) for seed in (3, 4)]
    queries = [Removal(Constant(value=2.0), order, levels) for order in ("most", "least")]
    curves = [context.run_map_query(query, field).scores for field in fields for query in queries]
    assert context.forwards == 2 + 4 * (min(levels, 16) - 1)
    counts = [round(16 * step / levels) for step in range(levels + 1)]
    orders = [order for field in fields for order in (field.order, field.order.flip(0))]
    for scores, order in zip(curves, orders, strict=True):
        assert torch.allclose(scores, _by_hand(context, order, counts, 2.0), rtol=1e-12, atol=0)


def test_ends_belong_to_their_fill() -> None:
    context = metric_context(Cubes(), bright(2, 1, 4), target={"kind": "class_score", "label": 0})
    field = MapField("m", bright(2, 1, 4, 3))
    dark, light = (
        context.run_map_query(Removal(Constant(value=v)), field).scores for v in (0.0, 3.0)
    )
    assert dark[0] == light[0]
    assert (float(dark[-1]), float(light[-1])) == pytest.approx((0.0, 16 * 27.0))


class Cubes(nn.Module):
    """Sum of the cubes, which no two sets of voxels share; records how many images it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append(len(image))
        return image.flatten(1).pow(3).sum(dim=1)[:, None].expand(-1, 2)


@pytest.mark.parametrize(("sides", "shown"), [((4, 4, 4), 2), ((16, 16), 1), ((60, 60, 60), 1)])
def test_a_lone_small_volume_is_predicted_twice(sides: tuple[int, ...], shown: int) -> None:
    """Twice where torch is slow with one; the result is for one."""
    network = Cubes()
    image = torch.rand(1, *sides)
    context = metric_context(network, image, target={"kind": "class_score", "label": 0})
    network.seen.clear()
    prediction = context.predict(image[None] * 2)
    assert network.seen == [shown]
    assert prediction.scores.shape == prediction.agreed.shape == (1,)
    assert float(prediction.scores) == pytest.approx(8 * context.score, rel=1e-5)


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [(5, 2, [2, 3]), (3, 2, [3]), (6, 3, [3, 3]), (7, 3, [3, 4]), (3, 1, [1, 1, 1]), (1, 4, [1])],
)
def test_no_last_image_is_left_alone(count: int, size: int, expected: list[int]) -> None:
    network = Cubes()
    image = torch.rand(1, 8, 8)
    context = metric_context(network, image, target={"kind": "class_score", "label": 0})
    context.predict(image[None])
    context._budget.size, context._budget._is_measured = size, True
    network.seen.clear()
    many = torch.rand(count, 1, 8, 8)
    predictions = context.predict_many(count, lambda numbers: many[numbers.start : numbers.stop])
    assert network.seen == expected
    assert torch.equal(predictions.scores.float(), many.flatten(1).pow(3).sum(dim=1))


@pytest.mark.parametrize("name", ["road", "sensitivity_n"])
@pytest.mark.parametrize(
    ("shares", "said"),
    [([0.1, 2], "less than 1"), ([0.0], "greater than 0"), ([0.5, 0.1], "ascending"), ([], "")],
)
def test_shares_lie_between_nothing_and_everything(
    name: str, shares: list[float], said: str
) -> None:
    with pytest.raises(ConfigError, match=f"shares.*{said}"):
        parse_metric({"name": name, "shares": shares})
