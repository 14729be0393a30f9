"""Other networks by how they differ: who is asked for what, and what cannot be compared."""

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
from voxplain.metrics.queries import other_network_maps as fellow_maps
from voxplain.models.model import Model

ROLES = {
    "seed": "seed_agreement",
    "architecture": "architecture_agreement",
    "labels": "data_randomization",
}


def _with(networks: Any, network: nn.Module, **options: Any) -> MetricContext:
    target = options.pop("target", SCORE)
    found = explain(network, images(), "saliency", target)["saliency"][0]
    return metric_context(
        network, images()[0], {"saliency": found}, target, networks=networks, **options
    )


def _negated(network: nn.Sequential) -> nn.Sequential:
    """The same network whose scores have the other sign."""
    with torch.no_grad():
        network.head.weight.neg_()
    return network


@pytest.mark.parametrize("role", ROLES)
def test_each_metric_asks_the_networks_of_its_role(role: str) -> None:
    twin, negated = Model(classifier(), name="twin"), Model(_negated(classifier()), name="negated")
    others = {other: [negated] for other in ROLES if other != role}
    context = _with({**others, role: [twin]}, classifier())
    found = value(ROLES[role], context.fields["saliency"], context)
    assert found.value == pytest.approx(1)
    context = _with({role: [twin, negated]}, classifier())
    found = value(ROLES[role], context.fields["saliency"], context)
    assert found.value == pytest.approx(0, abs=1e-9)  # 1 and -1
    for name in ROLES.values():
        said = reason(name, context.fields["saliency"], context)
        assert ("there is no other network" in said) == (name != ROLES[role])
    assert f'networks={{"{role}": [...]}}' in reason(
        ROLES[role], context.fields["saliency"], _with({}, classifier())
    )


def test_networks_of_which_nothing_is_said_differ_by_seed_or_architecture() -> None:
    context = _with([classifier()], classifier())
    field = context.fields["saliency"]
    assert value("seed_agreement", field, context).value == pytest.approx(1)
    assert value("architecture_agreement", field, context).value == pytest.approx(1)
    assert "permuted labels" in reason("data_randomization", field, context)


def test_a_network_is_asked_once_however_many_metrics_read_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, original = [], fellow_maps.explain_again
    monkeypatch.setattr(fellow_maps, "explain_again", lambda *a: asked.append(a) or original(*a))
    networks = [classifier(), classifier(act=nn.Tanh)]
    asked_for = ["seed_agreement", "architecture_agreement"]
    maps = explain(classifier(), images(), ["saliency", "input_x_gradient"], SCORE)
    evaluate(classifier(), images(), maps, asked_for, SCORE, networks=networks)
    assert len(asked) == 2


@pytest.mark.parametrize("measure", ["spearman", "spearman_absolute", "ssim", "hog"])
def test_a_flipped_sign_is_the_opposite_or_the_same(measure: str) -> None:
    """The facts hold all measures, since each can be fooled alone."""
    context = _with({"labels": _negated(classifier())}, classifier())
    field = context.fields["saliency"]
    found = value("data_randomization", field, context, similarity=measure)
    assert found.facts["measures"][measure] == pytest.approx(found.value)
    assert found.facts["networks"] == {"Sequential": pytest.approx(found.value)}
    expected = {"spearman": -1, "spearman_absolute": 1}
    if measure in expected:
        assert found.value == pytest.approx(expected[measure])


def test_a_network_that_learned_something_differs_from_one_that_did_not() -> None:
    """Maps of two trained networks are strong in the same places; those of noise are not."""
    network, batch = trained(), disks(8)
    asked = [
        {"name": "data_randomization"},
        {"name": "data_randomization", "similarity": "spearman_absolute"},
        {"name": "seed_agreement", "measure": "spearman_absolute"},
    ]
    found = evaluate(
        network,
        batch,
        explain(network, batch, "saliency", SCORE),
        asked,
        SCORE,
        networks={"seed": [trained(1)], "labels": [trained(0, permuted=True)]},
        controls=False,
    )
    values = torch.tensor(found.values()).view(8, 3).mean(dim=0).tolist()
    assert abs(values[0]) < 0.1  # measured: 0.01, 0.19 and 0.67
    assert values[1] < values[2] - 0.3


@pytest.mark.parametrize("window", [None, {"size": 4, "overlap": 0.5}])
@pytest.mark.parametrize("rank", [2, 3])
def test_dense_networks_keep_the_region_of_the_one_under_study(rank: int, window: Any) -> None:
    """A bare module is seen through the windows of the network that it is compared with."""
    network, other = Model(segmenter(rank), window=window), segmenter(rank)
    with torch.no_grad():
        other.conv1.weight.normal_(generator=torch.Generator().manual_seed(1))
    image = images(rank)
    maps = explain(network, image, "saliency", SEGMENT)
    context = metric_context(
        network, image[0], {"saliency": maps["saliency"][0]}, SEGMENT, networks={"labels": other}
    )
    found = value("data_randomization", context.fields["saliency"], context).value
    region = {"kind": "region", "label": 1, "mask": context.predicted}
    by_hand = explain(Model(other, window=window), image, "saliency", region)["saliency"].map[0]
    expected = rank_correlation(context.fields["saliency"].values, by_hand.sum(dim=0))
    assert found == pytest.approx(expected, abs=1e-6)
    whole = explain(other, image, "saliency", region)["saliency"].map[0]
    assert torch.equal(whole, by_hand) == (window is None)


def test_networks_of_one_name_stay_apart() -> None:
    networks = [classifier(), _negated(classifier()), classifier()]
    context = _with(networks, classifier())
    found = value("seed_agreement", context.fields["saliency"], context)
    assert found.facts == {
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
def test_networks_that_cannot_be_asked_the_same(other: nn.Module, words: str) -> None:
    context = _with({"seed": [Model(other, name="odd")]}, classifier())
    said = reason("seed_agreement", context.fields["saliency"], context)
    assert said.startswith("the network odd")
    assert words in said


def test_units_of_layers_are_others_in_other_networks() -> None:
    target = {"kind": "unit", "layer": "conv1", "channel": 0}
    context = _with([classifier()], classifier(), target=target)
    assert "unit of a layer" in reason("seed_agreement", context.fields["saliency"], context)


def test_a_map_of_another_network_that_says_nothing() -> None:
    silent = classifier()
    with torch.no_grad():
        silent.head.weight.zero_()
    context = _with({"labels": [Model(silent, name="silent")]}, classifier())
    said = reason("data_randomization", context.fields["saliency"], context)
    assert "the map of the network silent is constant" in said


def test_networks_in_every_form() -> None:
    one, other, studied = Model(classifier()), classifier(), Model(classifier(), head=0)

    def found(networks: Any) -> tuple[OtherNetwork, ...]:
        return other_networks(networks, studied)

    assert found([]) == found({}) == found({"seed": []}) == ()
    assert [other.differs for other in found([one, other])] == [None, None]
    assert [other.model.head for other in found([one, other])] == [None, 0]
    assert [other.differs for other in found(nn.ModuleList([other]))] == [None]
    (alone,) = found({"labels": other})  # a Sequential is one network, and no list of layers
    assert (alone.model.network, alone.differs) == (other, "labels")
    assert found(other)[0].model.network is other
    other = OtherNetwork(one, "architecture")
    assert found([other]) == (other,)


@pytest.mark.parametrize(
    ("networks", "words"),
    [
        ({"seeds": []}, r"networks: networks do not differ by 'seeds'; did you mean seed\?"),
        ({"seed": [classifier(), "net.pt"]}, r"networks\['seed'\]\[1\] is a str; give networks"),
        ([None], r"networks\[0\] is a NoneType"),
        (3, "networks is a int"),
    ],
)
def test_what_is_no_network(networks: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        evaluate(
            classifier(),
            images(),
            explain(classifier(), images(), "saliency", SCORE),
            ["seed_agreement"],
            SCORE,
            networks=networks,
        )
