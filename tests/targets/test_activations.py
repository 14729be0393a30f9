"""Scores or probabilities: what values and networks say, and that nothing is squashed twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from voxplain.attribution import explain, predict
from voxplain.errors import TargetError
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.targets import ClassScore, Pixelwise, UnperturbedOutput, Volume
from voxplain.targets.activations import activation_for, is_squashed, meaning_of

DENSE = torch.randn(2, 3, 5, 4) * 3


@pytest.mark.parametrize(
    ("output", "squashed", "meaning"),
    [
        (DENSE, None, "scores"),
        (DENSE, True, "scores"),
        (DENSE.softmax(1), None, "exclusive"),
        (DENSE.softmax(1), False, "exclusive"),  # normalized by a division
        (DENSE.half().softmax(1), None, "exclusive"),
        (DENSE.sigmoid(), None, "independent"),  # classes overlap above one half
        (DENSE.sigmoid(), False, "scores"),
        (DENSE[:, :1].sigmoid(), None, "unclear"),
        (DENSE[:, :1].sigmoid(), True, "independent"),
        (torch.tensor([[0.2, 0.8]]), None, "exclusive"),
        (torch.tensor([[0.2, 0.8]]), False, "scores"),
        (torch.tensor([[0.7, 0.8]]), None, "unclear"),
        (torch.tensor([[0.7, 0.8]]), True, "independent"),
        (torch.tensor([[0.7], [1.2]]), None, "scores"),
    ],
)
def test_what_an_output_is(output: Tensor, squashed: bool | None, meaning: str) -> None:
    assert meaning_of(output, squashed) == meaning


def test_what_makes_probabilities_of_it() -> None:
    assert activation_for("auto", "scores", 1) == "sigmoid"
    assert activation_for("auto", "scores", 3) == "softmax"
    assert activation_for("auto", "exclusive", 3) == "softmax_inside"
    assert activation_for("auto", "independent", 3) == "sigmoid_inside"
    assert activation_for("auto", "independent", 1) == "sigmoid_inside"
    assert activation_for("none", "exclusive", 3) == "softmax_inside"
    assert activation_for("none", "unclear", 3) == "sigmoid_inside"
    assert activation_for("sigmoid", "exclusive", 3) == "sigmoid"
    with pytest.raises(TargetError, match="set the activation of the target to softmax_inside"):
        activation_for("auto", "unclear", 3)


class Ends(nn.Module):
    """A layer with a function behind it."""

    def __init__(self, end: Any, channels: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(1, channels, 3, padding=1)
        self.end = end

    def forward(self, image: Tensor) -> Tensor:
        ended: Tensor = self.end(self.layer(image))
        return ended


@pytest.mark.parametrize(
    ("end", "squashed"),
    [
        (lambda x: x, False),
        (torch.relu, False),
        (lambda x: x * 2 + 1, False),
        (lambda x: x * torch.nn.functional.silu(x), False),
        (lambda x: x.log_softmax(1), False),
        (torch.sigmoid, True),
        (lambda x: 0.05 + 0.9 * x.sigmoid(), True),
        (lambda x: torch.cat([x.softmax(1)[:, :1], x.sigmoid()], 1)[:, :2].contiguous(), True),
        (lambda x: nn.functional.interpolate(x.sigmoid(), scale_factor=0.5, mode="bilinear"), True),
        (lambda x: (torch.tanh(x) + 1) / 2, True),
        (lambda x: x.exp() / x.exp().sum(1, keepdim=True), None),
        (lambda x: x.sigmoid().mean((2, 3)), True),
    ],
)
def test_what_stands_behind_the_last_layer(end: Any, squashed: bool | None) -> None:
    image = torch.randn(1, 1, 6, 6, requires_grad=True)
    assert is_squashed(Ends(end)(image)) is squashed
    with torch.no_grad():
        assert is_squashed(Ends(end)(image)) is None


CASES = [
    (lambda x: x, lambda x: x.softmax(1), 3, "softmax"),
    (lambda x: x, lambda x: x.exp() / x.exp().sum(1, keepdim=True), 3, "softmax"),
    (lambda x: x, torch.sigmoid, 3, "sigmoid"),
    (lambda x: x, torch.sigmoid, 1, "sigmoid"),
    (lambda x: x.mean((2, 3)), lambda x: x.mean((2, 3)).softmax(1), 3, "softmax"),
    (lambda x: x.mean((2, 3)), lambda x: x.mean((2, 3)).sigmoid(), 1, "sigmoid"),
]


@pytest.mark.parametrize(("scores", "probabilities", "channels", "activation"), CASES)
@pytest.mark.parametrize("link", ["probability", "log_odds"])
def test_a_network_says_the_same_with_its_activation_inside(
    scores: Any, probabilities: Any, channels: int, activation: Any, link: Any
) -> None:
    image = Image.from_array(torch.randn(1, 6, 6), spacing=2.0)
    kind: Any = Pixelwise if image.rank and scores(torch.zeros(1, 1, 2, 2)).ndim > 2 else ClassScore
    outside, inside = Ends(scores, channels), Ends(probabilities, channels)
    for label in range(max(2, channels)):
        asked = kind(label=label, link=link, activation=activation)
        try:
            expected = predict(outside, image, asked)
        except TargetError:  # predicted nowhere
            with pytest.raises(TargetError, match="is predicted nowhere"):
                predict(inside, image, asked.model_copy(update={"activation": "auto"}))
            continue
        found = predict(inside, image, asked.model_copy(update={"activation": "auto"}))
        assert found.score == pytest.approx(expected.score, rel=1e-4, abs=1e-4)
        assert found.volumes == pytest.approx(expected.volumes)
        if expected.probability is not None:
            assert found.probability == pytest.approx(expected.probability, rel=1e-5)
        assert "are taken as probabilities" in " ".join(found.remarks)
        expected_map = explain(outside, image, "saliency", asked)["saliency"]
        found_map = explain(inside, image, "saliency", kind(label=label, link=link))["saliency"]
        torch.testing.assert_close(found_map.map, expected_map.map, rtol=1e-3, atol=1e-4)
        facts = found_map.sidecar.target
        assert facts.activation == f"{activation}_inside"
        assert expected_map.sidecar.target.activation == activation
        assert any("are taken as probabilities" in text for text in found_map.sidecar.warnings)


def test_in_windows_too() -> None:
    image, window = torch.randn(1, 1, 12, 12), {"size": 6, "overlap": 0.5}
    model = Model(Ends(lambda x: x.softmax(1)), window=window)
    expected = model.output(image)[:, 1].sum()
    found = predict(model, Image.from_array(image[0]), Volume(label=1))
    assert found.score == pytest.approx(float(expected), rel=1e-5)


def test_asked_for_once_more() -> None:
    """It is done, and said."""
    image = Image.from_array(torch.randn(1, 6, 6))
    network = Ends(lambda x: x.softmax(1))
    asked = Volume(label=1, activation="softmax")
    found = predict(network, image, asked)
    with torch.no_grad():
        twice = network(image.data[None]).softmax(1)[:, 1].sum()
    assert found.score == pytest.approx(float(twice), rel=1e-5)
    assert "softmax is applied to them as the target says" in found.remarks[0]


def test_a_target_that_follows_keeps_what_the_output_is() -> None:
    """Perturbed outputs that happen to lie in [0, 1] are still scores."""
    seen = UnperturbedOutput(torch.tensor([[3.0, -2.0]]))
    assert seen.meaning == "scores"
    image = Image.from_array(torch.rand(1, 4, 4))

    class Scaled(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            total = image.sum((1, 2, 3))[:, None]
            return torch.cat([total, 1 - total], 1)

    target = ClassScore(label=0, link="probability", follow=True)
    attribution = explain(Scaled(), image, {"name": "occlusion", "window": 4, "fill": 0}, target)
    total = float(image.data.sum())
    drop = torch.tensor([total, 1 - total]).softmax(0)[0] - torch.tensor([0.0, 1]).softmax(0)[0]
    assert float(attribution["occlusion"].map[0, 0, 0]) == pytest.approx(float(drop), rel=1e-4)


def test_unclear_outputs_ask_only_where_it_matters() -> None:
    class BlackBox(nn.Module):
        differentiable = False

        def forward(self, image: Tensor) -> Tensor:
            return image.mean((1, 2, 3))[:, None].clamp(0.2, 0.8)

    image = Image.from_array(torch.rand(1, 6, 6))
    score = explain(BlackBox(), image, {"name": "occlusion", "fill": 0}, ClassScore(label=1))
    facts = score["occlusion"].sidecar.target
    assert (facts.probability, facts.activation) == (None, None)
    with pytest.raises(TargetError, match="it is not known whether these are probabilities"):
        predict(BlackBox(), image, ClassScore(label=1, link="probability"))
    stated = ClassScore(label=1, link="probability", activation="sigmoid_inside")
    assert 0.2 <= predict(BlackBox(), image, stated).score <= 0.8
