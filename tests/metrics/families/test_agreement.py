"""Agreement of maps with each other and of networks that should give the same maps."""

from __future__ import annotations

import pytest
import torch
from metric_cases import CLASS_ONE, metric_context, reason, value
from networks import classifier, images
from scipy import stats

from voxplain.attribution import explain
from voxplain.metrics import evaluate
from voxplain.metrics.curves import rank_correlation, ranks
from voxplain.models.model import Model


@pytest.mark.parametrize("levels", [3, 10**6])
def test_rank_correlation_equals_scipy(levels: int) -> None:
    first, second = (torch.randint(levels, (50,)).double() for _ in range(2))
    assert rank_correlation(first, second) == pytest.approx(
        stats.spearmanr(first, second).statistic
    )
    assert ranks(first).tolist() == stats.rankdata(first).tolist()


def test_methods_agree_as_their_ranks_do() -> None:
    image = images()[0]
    one, two, three = torch.randn(3, 1, 6, 6)
    maps = {"one": one, "two": two, "three": three}
    context = metric_context(classifier(), image, maps)
    result = value("method_agreement", context.fields["one"], context)
    pairs = [stats.spearmanr(one.flatten(), x.flatten()).statistic for x in (two, three)]
    assert result.value == pytest.approx(sum(pairs) / 2)
    assert [result.facts["two"], result.facts["three"]] == pytest.approx(pairs)
    rated = torch.stack(
        [ranks(attribution_map.flatten()) for attribution_map in maps.values()]
    ).sum(0)
    spread = float((rated - rated.mean()).square().sum())
    assert result.facts["kendall_w"] == pytest.approx(12 * spread / (9 * (36**3 - 36)))


def test_methods_with_the_same_ranks_agree_fully() -> None:
    values = torch.randn(1, 6, 6)
    context = metric_context(
        classifier(), images()[0], {"one": values, "cubed": values**3, "copy": 2 * values}
    )
    result = value("method_agreement", context.fields["one"], context)
    assert result.value == pytest.approx(1)
    assert result.facts["kendall_w"] == pytest.approx(1)


@pytest.mark.parametrize("metric", ["seed_agreement", "architecture_agreement"])
def test_networks_agree_with_their_twins(metric: str) -> None:
    network, twin, other = classifier(), classifier(), classifier(act=torch.nn.Tanh)
    with torch.no_grad():
        other.conv1.weight.normal_()
    image = images()[0]
    maps = {"saliency": explain(network, image[None], "saliency", CLASS_ONE)["saliency"][0]}
    same = metric_context(network, image, maps, networks=[Model(twin, name="twin")])
    result = value(metric, same.fields["saliency"], same)
    assert result.value == pytest.approx(1)
    assert result.facts == {"twin": pytest.approx(1)}
    both = metric_context(
        network, image, maps, networks=[Model(twin, name="t"), Model(other, name="o")]
    )
    result = value(metric, both.fields["saliency"], both)
    by_hand = explain(other, image[None], "saliency", CLASS_ONE)["saliency"].map[0]
    expected = stats.spearmanr(maps["saliency"].map.flatten(), by_hand.flatten()).statistic
    assert result.facts["o"] == pytest.approx(expected, abs=1e-6)
    assert result.value == pytest.approx((1 + expected) / 2, abs=1e-6)
    assert "no other network" in reason(
        metric, same.fields["saliency"], metric_context(network, image, maps)
    )


def test_each_image_of_a_batch_is_compared_with_each_network() -> None:
    network, batch = classifier(), images(2, 1, 3)
    maps = explain(network, batch, "saliency", CLASS_ONE)
    scores = evaluate(
        network, batch, maps, ["seed_agreement"], CLASS_ONE, networks=[classifier()], controls=False
    )
    assert scores.values() == pytest.approx([1, 1, 1])


def test_a_constant_map_does_not_affect_the_agreement_of_others() -> None:
    maps = dict(zip(("one", "two"), torch.randn(2, 1, 6, 6), strict=True))
    alone = metric_context(classifier(), images()[0], maps)
    beside = metric_context(classifier(), images()[0], {**maps, "flat": torch.ones(1, 6, 6)})
    expected = value("method_agreement", alone.fields["one"], alone)
    assert value("method_agreement", beside.fields["one"], beside) == expected
    assert reason("method_agreement", beside.fields["flat"], beside) == "the map is constant"
