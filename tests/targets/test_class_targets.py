"""Targets without a place: class scores, their signs, contrasts."""

from __future__ import annotations

import pytest
import torch
from networks import images, segmenter
from torch import Tensor

from voxplain.attribution import explain
from voxplain.errors import TargetError
from voxplain.targets import (
    ClassScore,
    Contrast,
    Label,
    Target,
    Unit,
    UnperturbedOutput,
    parse_target,
)

SCORES = torch.tensor([[1.0, 3.0, -2.0], [0.5, -1.0, 2.0]], dtype=torch.float64)
LOGIT = torch.tensor([[0.7], [-1.2]], dtype=torch.float64)
every_rank = pytest.mark.parametrize("rank", [2, 3])


def dense(rank: int, classes: int = 3, batch: int = 2) -> Tensor:
    return torch.randn(batch, classes, *(4, 5, 3)[:rank], dtype=torch.float64)


def derivative(target: Target, output: Tensor) -> Tensor:
    """dS/d output, with the field bound at that output."""
    leaf = output.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(target.bind(output).score(leaf).sum(), leaf)
    return gradient


class TestClassScore:
    @pytest.mark.parametrize("label", [0, 1, 2])
    def test_score(self, label: int) -> None:
        target = ClassScore(label=label)
        assert torch.equal(target.bind(SCORES).score(SCORES), SCORES[:, label])
        assert torch.equal(derivative(target, SCORES), torch.eye(3).double()[label].expand(2, 3))

    @pytest.mark.parametrize("label", [0, 1, 2])
    def test_probability(self, label: int) -> None:
        target = ClassScore(label=label, link="probability")
        probabilities = SCORES.exp() / SCORES.exp().sum(1, keepdim=True)
        torch.testing.assert_close(target.bind(SCORES).score(SCORES), probabilities[:, label])
        one_hot = torch.eye(3).double()[label]
        expected = probabilities[:, label : label + 1] * (one_hot - probabilities)
        torch.testing.assert_close(derivative(target, SCORES), expected)

    @pytest.mark.parametrize("label", [0, 1, 2])
    def test_log_odds(self, label: int) -> None:
        """d log(p / (1 - p)) is 1 for the class, minus the softmax over the others for them."""
        target = ClassScore(label=label, link="log_odds")
        probabilities = torch.softmax(SCORES, 1)[:, label]
        expected = torch.log(probabilities / (1 - probabilities))
        torch.testing.assert_close(target.bind(SCORES).score(SCORES), expected)
        others = [k for k in range(3) if k != label]
        gradient = torch.zeros_like(SCORES)
        gradient[:, label] = 1
        gradient[:, others] = -torch.softmax(SCORES[:, others], 1)
        torch.testing.assert_close(derivative(target, SCORES), gradient)

    @pytest.mark.parametrize(("label", "sign"), [(1, 1.0), (0, -1.0)])
    def test_one_logit(self, label: int, sign: float) -> None:
        score = ClassScore(label=label).bind(LOGIT).score(LOGIT)
        assert torch.equal(score, sign * LOGIT[:, 0])
        probability = ClassScore(label=label, link="probability").bind(LOGIT).score(LOGIT)
        torch.testing.assert_close(probability, torch.sigmoid(sign * LOGIT[:, 0]))
        odds = ClassScore(label=label, link="log_odds").bind(LOGIT).score(LOGIT)
        torch.testing.assert_close(odds, sign * LOGIT[:, 0])
        slope = torch.sigmoid(LOGIT) * (1 - torch.sigmoid(LOGIT))
        gradient = derivative(ClassScore(label=label, link="probability"), LOGIT)
        torch.testing.assert_close(gradient, sign * slope)

    def test_multi_label_networks_are_sigmoid(self) -> None:
        target = ClassScore(label=1, link="probability", activation="sigmoid")
        torch.testing.assert_close(target.bind(SCORES).score(SCORES), torch.sigmoid(SCORES[:, 1]))
        odds = ClassScore(label=1, link="log_odds", activation="sigmoid")
        assert torch.equal(odds.bind(SCORES).score(SCORES), SCORES[:, 1])

    def test_networks_that_end_in_probabilities(self) -> None:
        probabilities = torch.softmax(SCORES, 1)
        target = ClassScore(label=1, link="probability", activation="none")
        assert torch.equal(target.bind(probabilities).score(probabilities), probabilities[:, 1])
        odds = (
            ClassScore(label=1, link="log_odds", activation="none")
            .bind(probabilities)
            .score(probabilities)
        )
        torch.testing.assert_close(odds, torch.logit(probabilities[:, 1]))

    def test_predicted_is_chosen_for_each_image_and_stays(self) -> None:
        bound = ClassScore().bind(SCORES)
        assert torch.equal(bound.score(SCORES), SCORES.amax(1))
        assert torch.equal(bound.score(-SCORES), -SCORES.amax(1))  # the field does not move
        assert [words.split()[-1] for words in bound.in_words] == ["1", "2"]
        assert torch.equal(ClassScore().bind(LOGIT).score(LOGIT), LOGIT[:, 0].abs())

    @every_rank
    def test_one_dense_logit_is_predicted_by_the_majority_of_positions(self, rank: int) -> None:
        output = torch.full_like(dense(rank, 1, 3), -2.0)
        output[0].view(-1)[0] = 5.0
        output[1].view(-1)[:-1] = 1.0
        assert ClassScore().bind(output).labels == (0, 1, 0)

    @every_rank
    def test_dense_outputs_are_summed(self, rank: int) -> None:
        output = dense(rank)
        score = ClassScore(label=2).bind(output).score(output)
        torch.testing.assert_close(score, output[:, 2].flatten(1).sum(1))
        one = output[:, :1]
        background = ClassScore(label=0, link="probability").bind(one).score(one)
        torch.testing.assert_close(background, torch.sigmoid(-one).flatten(1).sum(1))

    def test_saturation_has_a_remark(self) -> None:
        target = ClassScore(label=1, link="probability")
        assert not target.bind(SCORES).remarks
        (remark,) = target.bind(SCORES * 20).remarks
        assert "saturated" in remark
        assert "log_odds" in remark
        assert not ClassScore(label=1).bind(SCORES * 20).remarks

    @pytest.mark.parametrize("label", [3, -1])
    def test_absent_class(self, label: int) -> None:
        with pytest.raises(
            TargetError, match=rf"class {label} does not exist; the output has 0 to 2"
        ):
            ClassScore(label=label).bind(SCORES)
        with pytest.raises(TargetError, match=r"0 to 1 \(one logit: 1 is its side, 0 the other"):
            ClassScore(label=2).bind(LOGIT)


class TestSignedFor:
    def test_one_logit_below_the_threshold_changes_sign(self) -> None:
        target = ClassScore(label=1, signed_for="predicted")
        bound = target.bind(LOGIT)
        assert torch.equal(bound.score(LOGIT), LOGIT[:, 0].abs())
        assert bound.in_words[0] == "the score of class 1"
        assert bound.in_words[1].startswith("minus the score of class 1")
        zero = ClassScore(label=0, signed_for="predicted").bind(LOGIT)
        assert torch.equal(zero.score(LOGIT), LOGIT[:, 0].abs())

    def test_predicted_labels_keep_their_sign(self) -> None:
        """Each image of a batch by its own label."""
        target = ClassScore(signed_for="predicted")
        for output in (LOGIT, LOGIT.flip(0)):
            assert torch.equal(target.bind(output).score(output), output[:, 0].abs())

    def test_bare_labels_too(self) -> None:
        bound = Label(label=1, signed_for="predicted").bind(LOGIT)
        assert torch.equal(bound.score(LOGIT), LOGIT[:, 0].abs())

    def test_probability(self) -> None:
        """The score of a probability becomes -S, without an offset."""
        target = ClassScore(label=1, link="probability", signed_for="predicted")
        probabilities = torch.sigmoid(LOGIT[:, 0])
        expected = torch.stack([probabilities[0], -probabilities[1]])
        torch.testing.assert_close(target.bind(LOGIT).score(LOGIT), expected)

    def test_the_threshold_decides(self) -> None:
        target = ClassScore(label=1, signed_for="predicted", threshold=0.9)
        assert torch.equal(target.bind(LOGIT).score(LOGIT), -LOGIT[:, 0])

    def test_only_for_one_logit(self) -> None:
        with pytest.raises(TargetError, match="signed_for='predicted' is for classifiers with one"):
            ClassScore(label=1, signed_for="predicted").bind(SCORES)


class TestContrast:
    def test_is_the_difference(self) -> None:
        a, b = ClassScore(label=0), ClassScore(label=2, link="probability")
        bound = Contrast(a=a, b=b).bind(SCORES)
        expected = a.bind(SCORES).score(SCORES) - b.bind(SCORES).score(SCORES)
        torch.testing.assert_close(bound.score(SCORES), expected)
        assert bound.in_words[0] == "the score of class 0, against the probability of class 2"

    def test_offsets_count(self) -> None:
        """1 - p of one logit against p."""
        a, b = (ClassScore(label=label, link="probability") for label in (0, 1))
        scores = Contrast(a=a, b=b).bind(LOGIT).score(LOGIT)
        torch.testing.assert_close(scores, 1 - 2 * torch.sigmoid(LOGIT[:, 0]))
        negative = Contrast(a=b, b=a).bind(LOGIT).score(LOGIT)
        torch.testing.assert_close(negative, -scores)

    @every_rank
    @pytest.mark.parametrize("method", ["saliency", "integrated_gradients", "layer_conductance"])
    def test_its_map_is_the_difference_of_two_maps(self, rank: int, method: str) -> None:
        network, shown = segmenter(rank).double(), images(rank, batch=2).double()
        targets = [
            {"kind": "pixelwise", "label": 1},
            {"kind": "pixelwise", "label": 2, "link": "probability"},
        ]
        maps = [explain(network, shown, method, target)[method].map for target in targets]
        contrast = {"kind": "contrast", "a": targets[0], "b": targets[1]}
        attribution_map = explain(network, shown, method, contrast)[method].map
        torch.testing.assert_close(attribution_map, maps[0] - maps[1], rtol=1e-10, atol=1e-12)

    def test_a_side_that_is_predicted_nowhere(self) -> None:
        """Otherwise the contrast would silently be the other side alone."""
        output = dense(2)
        output[:, 2] = -9
        contrast = parse_target(
            {
                "kind": "contrast",
                "a": {"kind": "pixelwise", "label": 1},
                "b": {"kind": "pixelwise", "label": 2},
            }
        )
        with pytest.raises(TargetError, match="class 2 is predicted nowhere"):
            contrast.bind(output)

    def test_a_contrast_with_itself_is_an_error(self) -> None:
        same = ClassScore(label=1)
        with pytest.raises(TargetError, match="selects nothing, so its score is 0"):
            Contrast(a=same, b=same).bind(SCORES)

    def test_sides_must_lie_on_one_output(self) -> None:
        unit = Unit(layer="conv1", channel=0)
        unperturbed = UnperturbedOutput(SCORES, activations={"conv1": torch.rand(2, 4, 3, 3)})
        with pytest.raises(TargetError, match="both targets on the output or on the same layer"):
            Contrast(a=ClassScore(label=1), b=unit).bind(unperturbed)
