"""Other networks by how they differ: which metric reads which, and what cannot be compared."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from every_metric import SCORE, SEGMENT
from metric_cases import metric_context, reason, value
from networks import classifier, images, segmenter
from torch import nn
from trained import disks, trained

from voxplain.attribution import explain
from voxplain.errors import ConfigError
from voxplain.metrics import MetricContext, OtherNetwork, evaluate
from voxplain.metrics.curves import rank_correlation
from voxplain.metrics.other_networks import other_networks
from voxplain.metrics.queries import other_network_maps as other_network_maps
from voxplain.models.model import Model

ROLES = {
    "seed": "seed_agreement",
    "architecture": "architecture_agreement",
    "labels": "data_randomization",
}


def _with(networks: Any, network: nn.Module, **options: Any) -> MetricContext:
    target = options.pop("target", SCORE)
    attribution = explain(network, images(), "saliency", target)["saliency"][0]
    return metric_context(
        network, images()[0], {"saliency": attribution}, target, networks=networks, **options
    )


def _negated(network: nn.Sequential) -> nn.Sequential:
    """The same network with the sign of its scores flipped."""
    with torch.no_grad():
        network.head.weight.neg_()
    return network


@pytest.mark.parametrize("role", ROLES)
def test_each_metric_reads_the_networks_of_its_role(role: str) -> None:
    twin, negated = Model(classifier(), name="twin"), Model(_negated(classifier()), name="negated")
    others = {other_role: [negated] for other_role in ROLES if other_role != role}
    context = _with({**others, role: [twin]}, classifier())
    result = value(ROLES[role], context.fields["saliency"], context)
    assert result.value == pytest.approx(1)
    context = _with({role: [twin, negated]}, classifier())
    result = value(ROLES[role], context.fields["saliency"], context)
    assert result.value == pytest.approx(0, abs=1e-9)  # 1 and -1
    for name in ROLES.values():
        said = reason(name, context.fields["saliency"], context)
        assert ("there is no other network" in said) == (name != ROLES[role])
    assert f'networks={{"{role}": [...]}}' in reason(
        ROLES[role], context.fields["saliency"], _with({}, classifier())
    )


def test_networks_without_a_role_differ_by_seed_or_architecture() -> None:
    context = _with([classifier()], classifier())
    field = context.fields["saliency"]
    assert value("seed_agreement", field, context).value == pytest.approx(1)
    assert value("architecture_agreement", field, context).value == pytest.approx(1)
    assert "permuted labels" in reason("data_randomization", field, context)


def test_metrics_share_the_maps_of_a_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, original = [], other_network_maps.explain_again
    monkeypatch.setattr(
        other_network_maps, "explain_again", lambda *a: calls.append(a) or original(*a)
    )
    networks = [classifier(), classifier(act=nn.Tanh)]
    metrics = ["seed_agreement", "architecture_agreement"]
    maps = explain(classifier(), images(), ["saliency", "input_x_gradient"], SCORE)
    evaluate(classifier(), images(), maps, metrics, SCORE, networks=networks)
    assert len(calls) == 2


@pytest.mark.parametrize("measure", ["spearman", "spearman_absolute", "ssim", "hog"])
def test_a_flipped_sign_is_the_opposite_or_the_same(measure: str) -> None:
    """The facts hold all measures, since each can be fooled alone."""
    context = _with({"labels": _negated(classifier())}, classifier())
    field = context.fields["saliency"]
    result = value("data_randomization", field, context, similarity=measure)
    assert result.facts["measures"][measure] == pytest.approx(result.value)
    assert result.facts["networks"] == {"Sequential": pytest.approx(result.value)}
    expected = {"spearman": -1, "spearman_absolute": 1}
    if measure in expected:
        assert result.value == pytest.approx(expected[measure])


def test_a_network_that_learned_something_differs_from_one_that_did_not() -> None:
    """Maps of two trained networks are strong in the same places; those of noise are not."""
    network, batch = trained(), disks(8)
    specs = [
        {"name": "data_randomization"},
        {"name": "data_randomization", "similarity": "spearman_absolute"},
        {"name": "seed_agreement", "measure": "spearman_absolute"},
    ]
    scores = evaluate(
        network,
        batch,
        explain(network, batch, "saliency", SCORE),
        specs,
        SCORE,
        networks={"seed": [trained(1)], "labels": [trained(0, permuted=True)]},
        controls=False,
    )
    values = torch.tensor(scores.values()).view(8, 3).mean(dim=0).tolist()
    assert abs(values[0]) < 0.1  # measured: 0.01, 0.19 and 0.67
    assert values[1] < values[2] - 0.3


@pytest.mark.parametrize("window", [None, {"size": 4, "overlap": 0.5}])
@pytest.mark.parametrize("rank", [2, 3])
def test_dense_networks_keep_the_region_of_the_one_under_study(rank: int, window: Any) -> None:
    """A bare module gets the windows of the network that it is compared with."""
    network, other = Model(segmenter(rank), window=window), segmenter(rank)
    with torch.no_grad():
        other.conv1.weight.normal_(generator=torch.Generator().manual_seed(1))
    image = images(rank)
    maps = explain(network, image, "saliency", SEGMENT)
    context = metric_context(
        network, image[0], {"saliency": maps["saliency"][0]}, SEGMENT, networks={"labels": other}
    )
    similarity = value("data_randomization", context.fields["saliency"], context).value
    region = {"kind": "region", "label": 1, "mask": context.predicted}
    by_hand = explain(Model(other, window=window), image, "saliency", region)["saliency"].map[0]
    expected = rank_correlation(context.fields["saliency"].values, by_hand.sum(dim=0))
    assert similarity == pytest.approx(expected, abs=1e-6)
    whole = explain(other, image, "saliency", region)["saliency"].map[0]
    assert torch.equal(whole, by_hand) == (window is None)


def test_networks_of_one_name_stay_apart() -> None:
    networks = [classifier(), _negated(classifier()), classifier()]
    context = _with(networks, classifier())
    result = value("seed_agreement", context.fields["saliency"], context)
    assert result.facts == {
        "Sequential": pytest.approx(1),
        "Sequential #2": pytest.approx(-1),
        "Sequential #3": pytest.approx(1),
    }


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (classifier(classes=4), "shape (4), and the one under study (3)"),
        (classifier(channels=2), "cannot take this image: "),
        (classifier().double(), "uses (cpu, torch.float64), and the one under study"),
        (segmenter(), "shape (3, 6, 6), and the one under study (3)"),
    ],
)
def test_networks_that_cannot_be_compared(other: nn.Module, words: str) -> None:
    context = _with({"seed": [Model(other, name="odd")]}, classifier())
    said = reason("seed_agreement", context.fields["saliency"], context)
    assert said.startswith("the network odd")
    assert words in said


def test_units_of_layers_cannot_be_compared_between_networks() -> None:
    target = {"kind": "unit", "layer": "conv1", "channel": 0}
    context = _with([classifier()], classifier(), target=target)
    assert "unit of a layer" in reason("seed_agreement", context.fields["saliency"], context)


def test_a_constant_map_of_another_network_gives_a_reason() -> None:
    silent = classifier()
    with torch.no_grad():
        silent.head.weight.zero_()
    context = _with({"labels": [Model(silent, name="silent")]}, classifier())
    said = reason("data_randomization", context.fields["saliency"], context)
    assert "the map of the network silent is constant" in said


def test_networks_in_every_form() -> None:
    model, module, studied = Model(classifier()), classifier(), Model(classifier(), head=0)

    def found(networks: Any) -> tuple[OtherNetwork, ...]:
        return other_networks(networks, studied)

    assert found([]) == found({}) == found({"seed": []}) == ()
    assert [module.differs for module in found([model, module])] == [None, None]
    assert [module.model.head for module in found([model, module])] == [None, 0]
    assert [module.differs for module in found(nn.ModuleList([module]))] == [None]
    (alone,) = found({"labels": module})  # a Sequential is one network, and no list of layers
    assert (alone.model.network, alone.differs) == (module, "labels")
    assert found(module)[0].model.network is module
    module = OtherNetwork(model, "architecture")
    assert found([module]) == (module,)


@pytest.mark.parametrize(
    ("networks", "words"),
    [
        ({"seeds": []}, r"networks: networks do not differ by 'seeds'; did you mean seed\?"),
        ({"seed": [classifier(), "net.pt"]}, r"networks\['seed'\]\[1\] is a str; give networks"),
        ([None], r"networks\[0\] is a NoneType"),
        (3, "networks is a int"),
    ],
)
def test_an_entry_that_is_no_network_is_refused(networks: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        evaluate(
            classifier(),
            images(),
            explain(classifier(), images(), "saliency", SCORE),
            ["seed_agreement"],
            SCORE,
            networks=networks,
        )
