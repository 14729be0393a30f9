"""Samplers and their parts: quadrature, baselines, intensity ranges, random generators."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from voxplain.engine.baselines import BLUR, baseline_image, intensity_range
from voxplain.engine.gradients.quadrature import Quadrature, nodes_and_weights
from voxplain.engine.gradients.samplers import (
    Original,
    PairedReference,
    RandomPathPoint,
    StraightPath,
)
from voxplain.engine.identity import image_key
from voxplain.engine.method import parse_method
from voxplain.engine.randomness import GaussianNoise, generator, standard_normal
from voxplain.engine.stream_io import StreamInput
from voxplain.errors import ConfigError

QUADRATURES: tuple[Quadrature, ...] = (
    "gauss_legendre",
    "left",
    "right",
    "midpoint",
    "trapezoid",
    "pair",
)


class TestQuadrature:
    @pytest.mark.parametrize("rule", QUADRATURES)
    @pytest.mark.parametrize("count", [2, 3, 32, 50])
    def test_weights_sum_to_one_and_nodes_ascend(self, rule: Quadrature, count: int) -> None:
        nodes, weights = nodes_and_weights(rule, count)
        assert nodes.dtype == weights.dtype == np.float64
        assert math.fsum(weights) == pytest.approx(1.0, abs=1e-15)
        assert (np.diff(nodes) > 0).all()
        assert nodes[0] >= 0
        assert nodes[-1] <= 1

    def test_gauss_integrates_polynomials_of_degree_2n_minus_1(self) -> None:
        nodes, weights = nodes_and_weights("gauss_legendre", 4)
        for degree in range(8):
            assert weights @ nodes**degree == pytest.approx(1 / (degree + 1), rel=1e-14)
        assert abs(weights @ nodes**8 - 1 / 9) > 1e-6

    def test_other_rules_by_their_definition(self) -> None:
        expected = {
            "left": ([0, 0.25, 0.5, 0.75], [0.25] * 4),
            "right": ([0.25, 0.5, 0.75, 1], [0.25] * 4),
            "midpoint": ([0.125, 0.375, 0.625, 0.875], [0.25] * 4),
            "trapezoid": ([0, 1 / 3, 2 / 3, 1], [1 / 6, 1 / 3, 1 / 3, 1 / 6]),
            "pair": ([0, 1 / 3, 2 / 3, 1], [0.25] * 4),
        }
        for rule, (nodes, weights) in expected.items():
            result = nodes_and_weights(rule, 4)  # type: ignore[arg-type]
            np.testing.assert_allclose(result[0], nodes, atol=1e-15)
            np.testing.assert_allclose(result[1], weights, atol=1e-15)

    @pytest.mark.parametrize("rule", ["trapezoid", "pair"])
    def test_both_ends_need_two_steps(self, rule: Quadrature) -> None:
        with pytest.raises(ConfigError, match=f"the {rule} rule needs at least 2 steps"):
            nodes_and_weights(rule, 1)


IMAGE = torch.arange(24.0).view(2, 3, 4)


def stream_input(
    image: Tensor = IMAGE, references: Tensor | None = None, key: str = "k"
) -> StreamInput:
    return StreamInput(image, 0, key, references)


class TestSamplers:
    def test_original(self) -> None:
        route = Original().route(stream_input())
        draw = route.draw(range(1))
        assert (route.count, draw.weights.tolist()) == (1, [1.0])
        assert torch.equal(draw.inputs[0], IMAGE)

    def test_straight_path(self) -> None:
        sampler = StraightPath(5, "right", 2.0)
        draw = sampler.route(stream_input()).draw(range(5))
        for step, point in enumerate(draw.inputs, 1):
            torch.testing.assert_close(point, 2 + step / 5 * (IMAGE - 2))
        assert draw.start is not None
        assert draw.end is not None
        assert torch.equal(draw.start[0], torch.full_like(IMAGE, 2))
        assert torch.equal(draw.end[0], IMAGE)

    @pytest.mark.parametrize(
        "sampler",
        [
            StraightPath(7),
            RandomPathPoint(7, 0.1),
            PairedReference(None, 3),
        ],
    )
    def test_points_do_not_depend_on_their_batches(self, sampler: StraightPath) -> None:
        references = torch.randn(3, *IMAGE.shape)
        route = sampler.route(stream_input(references=references))
        whole = route.draw(range(route.count))
        single = [route.draw(range(at, at + 1)) for at in range(route.count)]
        assert torch.equal(torch.cat([draw.inputs for draw in single]), whole.inputs)
        assert torch.equal(torch.cat([draw.weights for draw in single]), whole.weights)
        assert float(whole.weights.sum()) == pytest.approx(1, abs=1e-15)

    def test_random_path_points_lie_between_reference_and_image(self) -> None:
        references = torch.randn(4, *IMAGE.shape)
        draw = RandomPathPoint(200).route(stream_input(references=references)).draw(range(200))
        assert draw.start is not None
        assert draw.end is not None
        assert torch.equal(draw.end, IMAGE.expand_as(draw.end))
        along = ((draw.inputs - draw.start) / (draw.end - draw.start)).flatten(1)
        assert (along.std(1) < 1e-3).all()
        position = along.mean(1)
        assert 0 < position.min() < 0.05
        assert 0.95 < position.max() < 1
        assert float(position.mean()) == pytest.approx(0.5, abs=0.09)
        picks = [int((references == start).flatten(1).all(1).nonzero()) for start in draw.start]
        assert min(np.bincount(picks, minlength=4)) > 30

    @pytest.mark.parametrize("references", [None, torch.zeros(1, 2, 3, 4)])
    def test_missing_references_are_an_error(self, references: Tensor | None) -> None:
        count = 0 if references is None else 1
        with pytest.raises(ConfigError, match=f"with other images and {count} are given; pass at"):
            RandomPathPoint(3).route(stream_input(references=references)).draw(range(1))

    def test_noise_has_its_deviation_and_its_own_generator(self) -> None:
        image = torch.randn(2, 64, 64)
        image[1] *= 5
        source = GaussianNoise(3, 0.3, "minmax")
        copies = torch.stack(list(source.copies(image, "key")))
        noise = (copies - image).flatten(2)
        span = image.flatten(1).amax(1) - image.flatten(1).amin(1)
        torch.testing.assert_close(noise.std(2), (0.3 * span).expand(3, 2), rtol=0.05, atol=0)
        assert abs(np.corrcoef(noise.reshape(6, -1))[~np.eye(6, dtype=bool)]).max() < 0.06
        _, _, again, fourth = GaussianNoise(4, 0.3, "minmax").copies(image, "key")
        assert torch.equal(again, copies[2])
        assert not torch.equal(fourth, again)
        assert not torch.equal(next(source.copies(image, "other")), copies[0])


class TestBaselines:
    @pytest.mark.parametrize(
        ("baseline", "levels"),
        [
            ("zero", [0, 0]),
            ("minimum", [0, 12]),
            ("maximum", [11, 23]),
            ("mean", [5.5, 17.5]),
            (3, [3, 3]),
            (0.5, [0.5, 0.5]),
            ((1.0, 2.0), [1, 2]),
        ],
    )
    def test_levels(self, baseline: object, levels: list[float]) -> None:
        filled = baseline_image(baseline, IMAGE)
        assert torch.equal(filled, torch.tensor(levels).float().view(2, 1, 1).expand_as(IMAGE))

    def test_blur_is_a_gaussian_of_a_tenth_of_each_axis_and_no_channel(self) -> None:
        image = torch.randn(2, 20, 30, 10)
        filled = baseline_image("blur", image)
        for channel in range(2):
            sigma = [BLUR * size for size in image.shape[1:]]
            expected = ndimage.gaussian_filter(
                image[channel].double().numpy(), sigma, mode="nearest"
            )
            np.testing.assert_allclose(filled[channel], expected, rtol=1e-5, atol=1e-6)

    def test_a_tensor_as_baseline(self) -> None:
        other = torch.randn(2, 3, 4, dtype=torch.float64)
        assert torch.equal(baseline_image(other, IMAGE), other.float())
        with pytest.raises(
            ConfigError, match=r"baseline of shape \(1, 3, 4\) for an image of shape"
        ):
            baseline_image(other[:1], IMAGE)

    def test_values_must_match_the_channels(self) -> None:
        with pytest.raises(ConfigError, match="3 baseline values for an image with 2 channels"):
            baseline_image((1.0, 2.0, 3.0), IMAGE)

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ("zeros", "unknown baseline 'zeros'; did you mean zero"),
            (True, "a baseline is a name, a number, one number per channel, or a tensor"),
            ({"kind": "zero"}, "a baseline is a name"),
            (["a"], "a baseline is a name"),
        ],
    )
    def test_invalid_baselines_are_errors(self, wrong: object, words: str) -> None:
        with pytest.raises(ConfigError, match=rf"integrated_gradients\.baseline: {words}"):
            parse_method({"name": "integrated_gradients", "baseline": wrong})

    def test_a_list_from_a_study_is_one_level_per_channel(self) -> None:
        method = parse_method({"name": "integrated_gradients", "baseline": [1, 2.5]})
        assert method.properties().baseline == (1, 2.5)


class TestRange:
    def test_robust_leaves_out_background_and_outliers(self) -> None:
        image = torch.zeros(1, 100, 100)
        image[0, 30:70, 30:70] = torch.linspace(10, 20, 1600).view(40, 40)
        image[0, 50, 50] = 1e6
        assert float(intensity_range(image)) == pytest.approx(10, rel=0.02)
        assert float(intensity_range(image, "minmax")) == 1e6

    def test_per_channel(self) -> None:
        ranges = intensity_range(torch.stack([IMAGE[0], 10 * IMAGE[0]]), "minmax")
        assert ranges.shape == (2, 1, 1)
        assert ranges.flatten().tolist() == [11, 110]

    def test_without_background(self) -> None:
        values = torch.randn(1, 10_000)
        expected = float(torch.quantile(values, 0.995) - torch.quantile(values, 0.005))
        assert float(intensity_range(values)) == pytest.approx(expected, rel=1e-3)

    def test_constant_images_have_range_zero(self) -> None:
        assert float(intensity_range(torch.ones(1, 4, 4))) == 0


class TestDraws:
    def test_keys_follow_content_not_type_or_layout(self) -> None:
        image = torch.randn(2, 4, 5)
        assert image_key(image) == image_key(image.double()) == image_key(image.clone())
        strided = torch.stack([image, image], -1)[..., 0]
        assert image_key(strided) == image_key(image)
        assert image_key(image) != image_key(image.view(2, 5, 4))
        assert image_key(image) != image_key(image + 1e-3)

    def test_generators_differ_by_every_part(self) -> None:
        draws = {
            parts: torch.rand(1, generator=generator(*parts)).item()
            for parts in [("a", 1), ("a", 2), ("b", 1), ("a", "1", 1), ("a1",), ("1", "a")]
        }
        assert len(set(draws.values())) == len(draws)

    def test_normal_is_the_same_in_every_type(self) -> None:
        single = standard_normal(torch.zeros(5), generator("x"))
        double = standard_normal(torch.zeros(5, dtype=torch.float64), generator("x"))
        assert torch.equal(single.double(), double)
