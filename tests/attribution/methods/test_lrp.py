"""LRP to the image and to layers, conditional relevance, and both in windows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import assert_close, classifier, images, segmenter, untouched
from relevance import run_lrp
from torch import Tensor, nn
from windowed_cases import exact, global_context

from voxplain.attribution import Attribution, explain
from voxplain.engine.rules import Lrp
from voxplain.errors import ConfigError, ModelError
from voxplain.models.model import Model

SCORE = {"kind": "class_score", "label": 1, "link": "score"}


def relevance(network: Any, image: Tensor, target: Any = SCORE, **method: Any) -> Attribution:
    """One relevance attribution."""
    spec = {"name": "lrp", **method}
    return explain(network, image, spec, target)[spec["name"]]


def conservation(actual: Attribution) -> dict[str, float]:
    """The conservation that the sidecar states: relevance of biases, of stabilizers, of padding."""
    return dict(actual.stats.streams[0]["conservation"])


@pytest.mark.parametrize("rank", [2, 3])
def test_the_map_is_what_the_rule_brings_to_the_image(rank: int) -> None:
    network, x = classifier(rank, 2).double(), images(rank, 2, 3).double()
    with untouched(network):
        attribution = relevance(network, x)
    expected = run_lrp(network, x, Lrp(), lambda output: output[:, 1])
    assert_close(attribution.map, expected.relevance.float(), 1e-6)
    shares = conservation(attribution)
    assert shares["map"] == pytest.approx(float(attribution.map.sum()) / 3, rel=1e-5)
    assert shares["score"] == pytest.approx(sum(attribution.stats.scores) / 3)
    assert shares["bias"] == pytest.approx(expected.bias / 3)
    whole = sum(shares[name] for name in ("map", "bias", "epsilon", "link", "padding"))
    assert whole == pytest.approx(shares["score"], rel=1e-6)
    assert abs(shares["link"]) + abs(shares["padding"]) < 1e-9


def test_the_books_of_a_small_float32_volume_that_goes_along_twice() -> None:
    network, x = classifier(3), images(3)
    shares = conservation(relevance(network, x))
    double = conservation(relevance(network.double(), x.double()))
    for name, value in double.items():
        assert shares[name] == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("link", ["probability", "log_odds"])
def test_a_link_enters_by_its_slope(link: str) -> None:
    """R = dS/dF F at the output; the rest of S is stated in the sidecar."""
    network, x = classifier(2, 2).double(), images(2, 2).double()
    attribution = relevance(network, x, {**SCORE, "link": link})
    output = network(x).detach().requires_grad_()
    if link == "probability":
        score = output.softmax(1)[:, 1].sum()
    else:
        score = (output[:, 1] - output[:, [0, 2]].logsumexp(1)).sum()
    (slope,) = torch.autograd.grad(score, output)
    expected = run_lrp(network, x, Lrp(), lambda output: (slope * output).sum(1))
    assert_close(attribution.map, expected.relevance.float(), 1e-6)
    entered = float((slope * output).sum().detach())
    assert conservation(attribution)["link"] == pytest.approx(
        float(score.detach()) - entered, rel=1e-6
    )


def test_composites_and_parameters_reach_the_rule() -> None:
    network, x = classifier(2, 2).double(), images(2, 2).double()
    maps = {}
    for parameters in (
        {"composite": "epsilon"}, {"composite": "epsilon_plus"}, {"composite": "alpha2_beta1"},
        {"gamma": 2.0}, {"low": -9.0, "high": 9.0}, {"epsilon": 0.1},
        {"composite": [{"rule": "flat", "first": True}, {"rule": "gamma", "depth": [0, 0.9]}]},
    ):  # fmt: skip
        maps[str(parameters)] = relevance(network, x, **parameters).map
    maps["default"] = relevance(network, x).map
    names = list(maps)
    for i, first in enumerate(names):
        for second in names[:i]:
            change = float((maps[first] - maps[second]).abs().max())
            assert change > 1e-3 * float(maps[first].abs().max()), (first, second)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"composite": "epsilon_gama"}, "epsilon_gamma_box"),
        ({"composite": [{"rule": "gamma", "kernels": "wide"}]}, "kernels"),
        ({"composite": [{"rule": "box"}]}, "first"),
        ({"low": 0.0}, "together"),
        ({"name": "conditional_relevance"}, "layer_channels"),
        ({"name": "conditional_relevance", "layer_channels": []}, "layer_channels"),
    ],
)
def test_wrong_parameters_are_refused_in_words(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        relevance(classifier(2), images(2), **parameters)


@pytest.mark.parametrize("rank", [2, 3])
def test_windows_that_see_enough_give_the_map_of_the_whole(rank: int) -> None:
    """The box rule, too: its range is that of the volume, not of each window."""
    case = exact(rank)
    target = {"kind": "pixelwise", "label": 1}
    for composite in ("epsilon", "epsilon_gamma_box"):
        method = {"composite": composite, "epsilon": 1e-10}
        whole = relevance(case.network, case.image, target, **method)
        windowed = relevance(case.model, case.image, target, **method)
        assert_close(windowed.map, whole.map, 1e-5)
        assert conservation(windowed)["score"] == pytest.approx(conservation(whole)["score"])
        assert conservation(windowed)["map"] == pytest.approx(conservation(whole)["map"], rel=1e-5)


@pytest.mark.parametrize("link", ["score", "probability"])
@pytest.mark.parametrize("batch", [1, 3])
def test_each_window_adds_its_weighted_relevance(link: str, batch: int) -> None:
    case = global_context(2, batch=batch)
    target = {"kind": "region", "box": [[0, 13], [0, 9]], "label": 1, "link": link}
    attribution = relevance(case.model, case.image, target, low=-3.0, high=3.0)
    shares = conservation(attribution)
    whole = sum(shares[name] for name in ("map", "bias", "epsilon", "link", "padding"))
    assert whole == pytest.approx(shares["score"], rel=1e-6)
    assert shares["score"] == pytest.approx(attribution.stats.scores[0], rel=1e-6)
    expected = _by_hand(case, link)
    assert_close(attribution.map, expected.float(), 1e-5)


def _by_hand(case: Any, link: str) -> Tensor:
    layout, rule = case.layout, Lrp(low=(-3.0,), high=(3.0,))
    padded = layout.pad(case.image[0])
    output = case.model.output(case.image).detach().requires_grad_()
    linked = output if link == "score" else output.softmax(1)
    (slope,) = torch.autograd.grad(linked[:, 1].sum(), output)
    total, slope = torch.zeros_like(padded), layout.pad(slope[0])
    for position in layout.positions:
        weights = layout.cut(slope, [position])
        weights = weights * layout.blend_weights([position], weights)
        part = run_lrp(
            case.network,
            layout.cut(padded, [position]),
            rule,
            lambda output, weights=weights: (weights * output).flatten(1).sum(1),
        )
        total[layout.region(position)] += part.relevance[0]
    return layout.unpad(total)[None]


@pytest.mark.filterwarnings("ignore:the window")
def test_what_falls_on_the_padding_of_windows_is_booked() -> None:
    """A window larger than the image; the box rule counts padding as an intensity."""
    case = global_context(2)
    model = Model(case.network, window={"size": 8})
    target = {"kind": "region", "box": [[0, 5], [0, 5]], "label": 1}
    shares = conservation(relevance(model, case.image[..., :5, :5], target, low=-3.0, high=3.0))
    assert abs(shares["padding"]) > 1e-3 * abs(shares["score"])
    whole = sum(shares[name] for name in ("map", "bias", "epsilon", "link", "padding"))
    assert whole == pytest.approx(shares["score"], rel=1e-6)


class Branching(nn.Module):
    """Two convolutions with a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.trunk = nn.Conv2d(4, 4, 3, padding=1)
        self.round = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(144, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head((self.trunk(x).relu() + self.round(x)).relu().flatten(1))


def conditional(network: nn.Module, x: Tensor, layer: str, channels: Any) -> Tensor:
    method = {"name": "conditional_relevance", "layer": layer, "layer_channels": channels}
    return relevance(network, x, **method).map


def test_ways_and_channels_add_up_to_the_whole_relevance() -> None:
    network, x = Branching().double().eval(), images(2, 1, 2).double()
    with untouched(network):
        trunk = conditional(network, x, "trunk", [0, 1, 2, 3])
        skip = conditional(network, x, "round", [0, 1, 2, 3])
    assert float(skip.abs().max()) > 0.01
    assert_close(trunk + skip, relevance(network, x).map, 1e-6)
    maps = [conditional(network, x, "trunk", channel) for channel in range(4)]
    assert all(float(part.abs().max()) > 1e-4 for part in maps)
    assert_close(torch.stack(maps).sum(0), trunk, 1e-6)
    assert_close(maps[1] + maps[3], conditional(network, x, "trunk", [1, 3]), 1e-6)


def test_a_channel_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match="channels 0 to 3"):
        conditional(Branching().eval(), images(2), "trunk", [4])


def test_windowed_channels_add_up_too() -> None:
    case = global_context(2)
    target = {"kind": "region", "box": [[0, 13], [0, 9]], "label": 1}
    maps = [
        relevance(case.model, case.image, target, name="conditional_relevance", layer="conv2",
            layer_channels=channels).map for channels in ([0, 3], [1, 2])
    ]  # fmt: skip
    assert_close(maps[0] + maps[1], relevance(case.model, case.image, target).map, 1e-5)


def test_relevance_at_a_layer_in_closed_form() -> None:
    """At the input of the head: A w / z S, and channels keep their cells."""
    network, x = classifier(2, 2).double(), images(2, 2).double()
    attribution = relevance(network, x, name="layer_lrp", layers="act2", epsilon=1e-12)
    activation = network[:-2](x).detach()
    weights = network.head.weight[1].view_as(activation[0])
    score = float(attribution.stats.scores[0])
    assert_close(attribution.map, (activation * weights).float(), 1e-6)
    assert float(attribution.map.sum()) == pytest.approx(
        score - float(network.head.bias[1]), rel=1e-5
    )
    both = relevance(network, x, name="layer_lrp", layers="act1")
    assert tuple(both.map.shape) == (1, 4, 6, 6)


def test_other_targets_and_noisy_copies() -> None:
    network, x = segmenter(2, 2).double(), images(2, 2, 2).double()
    unit = {"kind": "unit", "layer": "act1", "channel": 2}
    attribution = relevance(network, x, unit)
    front = nn.Sequential(network.conv1, network.act1)
    explained = run_lrp(front, x, Lrp(), lambda output: output[:, 2].flatten(1).sum(1))
    assert_close(
        attribution.map / float(attribution.map.abs().max()),
        (explained.relevance / explained.relevance.abs().max()).float(),
        1e-5,
    )
    contrast = {"kind": "contrast", "a": {"kind": "pixelwise", "label": 1},
                "b": {"kind": "pixelwise", "label": 0}}  # fmt: skip
    shares = conservation(relevance(network, x, contrast))
    assert shares["map"] + shares["bias"] + shares["epsilon"] == pytest.approx(shares["score"])
    spec = {"name": "smoothgrad", "of": "lrp", "samples": 3}
    smooth = explain(network, x, spec, {"kind": "pixelwise", "label": 1})["smoothgrad_lrp"]
    assert float(smooth.map.abs().max()) > 0


def test_a_map_that_holds_little_of_the_score_says_so() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(72, 2)).double()
    with torch.no_grad():
        network[2].bias.fill_(50.0)
    attribution = relevance(Model(network), images(2).double(), {**SCORE, "label": 0})
    assert any("biases" in warning for warning in attribution.stats.warnings)
