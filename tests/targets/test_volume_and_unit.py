"""Targets without a place: volumes, units of layers, and the facts about targets in results."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from networks import images, segmenter
from torch import Tensor, nn

from voxplain.attribution import explain, predict
from voxplain.engine.method import parse_method
from voxplain.errors import TargetError
from voxplain.image import Grid, Image
from voxplain.models.output_place import OutputPlace
from voxplain.targets import ClassScore, Unit, UnperturbedOutput, Volume

SCORES = torch.tensor([[1.0, 3.0, -2.0], [0.5, -1.0, 2.0]], dtype=torch.float64)
every_rank = pytest.mark.parametrize("rank", [2, 3])


def dense(rank: int, classes: int = 3, batch: int = 2) -> Tensor:
    return torch.randn(batch, classes, *(4, 5, 3)[:rank], dtype=torch.float64)


class TestVolume:
    def image(self, rank: int, spacing: Any = None) -> Image:
        shape = (4, 5, 3)[:rank]
        return Image(torch.zeros(1, *shape), Grid.default(shape, spacing))

    def test_milliliters_of_anisotropic_voxels(self) -> None:
        output = dense(3, batch=1)
        bound = Volume(label=1).bind(output, self.image(3, (0.5, 2.0, 4.0)))
        expected = torch.softmax(output, 1)[:, 1].sum() * 0.5 * 2 * 4 / 1000
        torch.testing.assert_close(bound.score(output)[0], expected)
        assert bound.in_words == ("the predicted volume of class 1 in mL",)

    def test_square_centimeters_in_2d(self) -> None:
        output = dense(2, batch=1)
        bound = Volume(label=1).bind(output, self.image(2, (0.5, 2.0)))
        expected = torch.softmax(output, 1)[:, 1].sum() / 100
        torch.testing.assert_close(bound.score(output)[0], expected)
        assert bound.in_words[0].endswith("in cm²")

    def test_sheared_grids_count_their_true_volume(self) -> None:
        affine = np.eye(4)
        affine[:3, :3] = [[1, 0, 0.5], [0, 2, 0], [0, 0, 3]]
        output = dense(3, batch=1)
        image = Image(torch.zeros(1, 4, 5, 3), Grid((4, 5, 3), affine))
        score = Volume(label=1).bind(output, image).score(output)[0]
        torch.testing.assert_close(score, torch.softmax(output, 1)[:, 1].sum() * 6 / 1000)

    def test_unknown_size_counts_elements(self) -> None:
        output = dense(3)
        bound = Volume(label=2).bind(output)
        expected = torch.softmax(output, 1)[:, 2].flatten(1).sum(1)
        torch.testing.assert_close(bound.score(output), expected)
        assert bound.in_words[0].endswith("in voxels")
        pixels = Volume(label=1).bind(dense(2, batch=1), self.image(2))
        assert pixels.in_words[0].endswith("in pixels")

    @pytest.mark.parametrize("label", [0, 1])
    def test_one_channel(self, label: int) -> None:
        output = dense(3, classes=1, batch=1)
        scores = Volume(label=label).bind(output, self.image(3, 2.0)).score(output)
        probabilities = torch.sigmoid(output if label == 1 else -output)
        torch.testing.assert_close(scores[0], probabilities.sum() * 8 / 1000)

    def test_a_coarser_output_has_larger_voxels(self) -> None:
        shape = (8, 10, 3)
        place = OutputPlace((0.5, 0.5, 0), (2, 2, 1), (4, 5, 3), shape)
        seen = UnperturbedOutput(dense(3), input_shape=shape, voxel_volume=1.0, place=place)
        found = Volume(label=1).bind(seen).score(seen.output)
        expected = torch.softmax(seen.output, 1)[:, 1].flatten(1).sum(1) * 4 / 1000
        torch.testing.assert_close(found, expected)
        with pytest.raises(TargetError, match="a volume needs the place of the output"):
            Volume(label=1).bind(replace(seen, place=None))

    def test_scores_have_no_volume(self) -> None:
        with pytest.raises(TargetError, match="a volume needs a dense output"):
            Volume(label=1).bind(SCORES)
        with pytest.raises(TargetError, match="class 5 does not exist"):
            Volume(label=5).bind(dense(2))

    def test_predict_states_volumes(self) -> None:
        network = segmenter(3)
        image = Image(images(3)[0], Grid.default((6, 6, 6), (1.0, 2.0, 3.0)))
        prediction = predict(network, image, Volume(label=1))
        with torch.no_grad():
            output = network(image.data[None])
        counts = torch.bincount(output.argmax(1).flatten(), minlength=3) * 6 / 1000
        assert list(prediction.volumes.values()) == pytest.approx(counts.tolist())
        assert prediction.volume_unit == "mL"
        expected = float(torch.softmax(output, 1)[:, 1].sum()) * 6 / 1000
        assert prediction.score == pytest.approx(expected, rel=1e-5)


class TestUnit:
    @every_rank
    @pytest.mark.parametrize("method", ["saliency", "guided_backprop"])
    def test_its_gradient_is_that_of_the_unit(self, rank: int, method: str) -> None:
        network, shown = segmenter(rank), images(rank, batch=2)
        place = (2,) * rank
        unit = Unit(layer="conv2", channel=3, position=place)
        attribution_map = explain(network, shown, method, unit)[method].map
        class_target = {"kind": "region", "label": 3, "voxel": place}
        inner = nn.Sequential(*list(network.children())[:3])
        expected = explain(inner, shown, method, class_target)[method].map
        torch.testing.assert_close(attribution_map, expected)

    def test_fields(self) -> None:
        activation = torch.tensor([[[[1.0, 2.0]], [[9.0, -9.0]], [[3.0, 3.0]]]])
        unperturbed = UnperturbedOutput(SCORES[:1], activations={"a": activation})
        for unit, expected, words in (
            (Unit(layer="a", channel=1), 0.0, "channel 1 of layer a, summed over positions"),
            (Unit(layer="a", channel="strongest"), 6.0, "channel 2 of layer a, summed"),
            (Unit(layer="a", channel=1, position="max"), 9.0, "at its maximum (0, 0)"),
            (Unit(layer="a", channel=1, position=(0, 1)), -9.0, "channel 1 of layer a at (0, 1)"),
        ):
            bound = unit.bind(unperturbed)
            assert bound.layer == "a"
            assert bound.score(activation).tolist() == [expected]
            assert words in bound.in_words[0]

    def test_channels_and_positions_that_do_not_exist(self) -> None:
        network, shown = segmenter(2), images(2)
        with pytest.raises(TargetError, match="layer conv2 has channels 0 to 5, not 6"):
            explain(network, shown, "saliency", Unit(layer="conv2", channel=6))
        with pytest.raises(TargetError, match=r"layer conv2 has positions \(6, 6\), not \(6, 0\)"):
            explain(network, shown, "saliency", Unit(layer="conv2", channel=1, position=(6, 0)))
        with pytest.raises(TargetError, match=r"positions \(6, 6\), not \(1,\)"):
            explain(network, shown, "saliency", Unit(layer="conv2", channel=1, position=(1,)))

    def test_a_unit_before_the_tapped_layer(self) -> None:
        """A unit does not depend on later layers: a zero map with a warning."""
        attribution = explain(
            segmenter(2),
            images(2),
            {"name": "vanilla_layer_visualization", "layers": "head"},
            Unit(layer="conv2", channel=1),
        )["vanilla_layer_visualization"]
        assert not attribution.map.any()
        expected = "no gradient of the score reaches layer 'head'"
        assert any(expected in text for text in attribution.stats.warnings)


class TestFacts:
    def test_probabilities_of_each_image(self) -> None:
        """Of the class that is explained in that image."""
        network = nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False))
        with torch.no_grad():
            network[1].weight.fill_(1.0)
        shown = torch.tensor([[[[0.3, 0.4]]], [[[-0.6, -0.6]]]])
        attribution = explain(network, shown, "saliency", ClassScore())["saliency"]
        probabilities = [facts.probability for facts in attribution.target]
        expected = [torch.sigmoid(torch.tensor(0.7)), torch.sigmoid(torch.tensor(1.2))]
        assert probabilities == pytest.approx([float(probability) for probability in expected])
        assert [facts.score for facts in attribution.target] == pytest.approx([0.7, 1.2])
        assert torch.equal(attribution.map[0], -attribution.map[1])

    def test_layer_guided_backprop_states_its_own_target(self) -> None:
        method = parse_method({"name": "layer_activation_guided_backprop", "layer": "act2"})
        attributions = explain(segmenter(2), images(2), [method, "saliency"], 1)
        assert attributions[method.key].target[0].kind == "unit"
        assert "layer act2" in attributions[method.key].target[0].in_words
        assert attributions["saliency"].target[0].kind == "label"

    def test_not_finite(self) -> None:
        output = SCORES.clone()
        output[0, 0] = float("nan")
        output[1, 1] = float("inf")
        with pytest.raises(
            TargetError, match="holds 2 NaN or infinite values of 6; check the weig"
        ):
            ClassScore(label=1).bind(output)
