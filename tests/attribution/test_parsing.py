"""Names and mappings of methods and targets, and the errors of wrong ones."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from networks import classifier, images
from pydantic import ValidationError

from voxplain.attribution import explain
from voxplain.attribution.methods import methods
from voxplain.engine.method import parse_method
from voxplain.errors import ConfigError, InputError, ModelError
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.targets import ClassScore, Label, Pixelwise, Unit, parse_target


class TestMethods:
    def test_names_mappings_and_objects(self) -> None:
        named = parse_method("integrated_gradients")
        mapped = parse_method({"name": "integrated_gradients", "steps": 32})
        assert named == mapped
        assert parse_method(named) is named

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ("salience", r"unknown method 'salience'; did you mean saliency"),
            ({"steps": 3}, "a method needs a name"),
            ({"name": "deconvnet"}, "unknown method 'deconvnet'; did you mean deconvolution"),
            (
                {"name": "integrated_gradients", "stepz": 3},
                r"integrated_gradients\.stepz: unknown parameter; did you mean steps\?",
            ),
            (
                {"name": "saliency", "absolut": True},
                r"saliency\.absolut: unknown parameter; did you mean abs",
            ),
            (
                {"name": "integrated_gradients", "steps": 0},
                r"integrated_gradients\.steps: input should be greater than or equal to 1",
            ),
            (
                {"name": "integrated_gradients", "quadrature": "simpson"},
                r"integrated_gradients\.quadrature: input should be 'gauss_legendre', 'left'",
            ),
            ({"name": "vargrad"}, r"vargrad\.of: field required"),
            (
                {"name": "smoothgrad", "of": "saliancy"},
                r"smoothgrad.*unknown method 'saliancy'; did you mean saliency\?",
            ),
            (
                {"name": "smoothgrad", "of": {"name": "integrated_gradients", "stepz": 3}},
                r"smoothgrad.*integrated_gradients\.stepz: unknown parameter; did you mean steps",
            ),
            (
                {"name": "smoothgrad", "of": {"name": "vargrad", "of": "saliency"}},
                r"smoothgrad\.of: vargrad cannot be summed up over noise twice",
            ),
            (
                {"name": "smoothgrad", "of": "saliency", "power": 3},
                r"smoothgrad\.power: input should",
            ),
            (
                {"name": "smoothgrad", "of": "saliency", "sigma": 0},
                r"smoothgrad\.sigma: input should",
            ),
            (
                {"name": "deep_lift_shap", "references": 1},
                r"deep_lift_shap\.references: input should",
            ),
        ],
    )
    def test_wrong(self, given: Any, words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            parse_method(given)

    def test_the_place_in_a_study_comes_first(self) -> None:
        with pytest.raises(
            ConfigError, match=r"^methods\[1\]: unknown method 'gradcam'; did you mean"
        ):
            explain(classifier(), images(), ["saliency", "gradcam"], 1)
        with pytest.raises(ConfigError, match=r"^methods\[0\]: saliency\.steps: unknown parameter"):
            explain(classifier(), images(), [{"name": "saliency", "steps": 3}], 1)

    def test_frozen(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            parse_method("saliency").absolute = True  # type: ignore[misc]

    def test_defaults_drop_on_paths_under_noise(self) -> None:
        noisy: Any = parse_method({"name": "smoothgrad", "of": "integrated_gradients"})
        assert (noisy.samples, noisy.of.steps) == (8, 16)
        stated: Any = parse_method(
            {"name": "vargrad", "of": {"name": "integrated_gradients", "steps": 40}, "samples": 3}
        )
        assert (stated.samples, stated.of.steps) == (3, 40)
        plain: Any = parse_method({"name": "smoothgrad", "of": "guided_backprop"})
        assert plain.samples == 25

    def test_keys(self) -> None:
        for given, key in (
            ("saliency", "saliency"),
            ({"name": "saliency", "label": "mine"}, "mine"),
            ({"name": "smoothgrad", "of": "deconvolution"}, "smoothgrad_deconvolution"),
            ({"name": "smoothgrad", "of": "saliency", "power": 2}, "smoothgrad_squared_saliency"),
            ({"name": "vargrad", "of": "saliency"}, "vargrad_saliency"),
        ):
            assert parse_method(given).key == key

    def test_the_same_method_twice(self) -> None:
        attributions = explain(
            classifier(), images(), ["saliency", {"name": "saliency", "abs": True}], 1
        )
        assert list(attributions) == ["saliency", "saliency-2"]
        assert torch.equal(attributions["saliency-2"].map, attributions["saliency"].map.abs())
        labeled = [{"name": name, "label": "same"} for name in ("saliency", "grad_cam")]
        with pytest.raises(ConfigError, match="two methods are labeled 'same'; rename one"):
            explain(classifier(), images(), labeled, 1)

    def test_none(self) -> None:
        with pytest.raises(ConfigError, match="no method is asked for"):
            explain(classifier(), images(), [], 1)

    @pytest.mark.parametrize("name", list(methods))
    def test_parameters_survive_json(self, name: str) -> None:
        needed = {"of": "saliency", "against": 1, "layer_channels": [0]}
        required = (k for k, field in methods.get(name).model_fields.items() if field.is_required())
        method = parse_method({"name": name, **{key: needed[key] for key in required}})
        again = parse_method(method.model_dump(mode="json", by_alias=True))
        assert again == method

    def test_post_steps(self) -> None:
        inputs = images(2, 2)
        network = classifier(2, 2)
        kept = explain(network, inputs, "saliency", 1)["saliency"].map
        expected = {
            "sum": kept.sum(1, keepdim=True),
            "sum_abs": kept.abs().sum(1, keepdim=True),
            "max_abs": torch.where(
                kept[:, :1].abs() >= kept[:, 1:].abs(), kept[:, :1], kept[:, 1:]
            ),
        }
        for channels, values in expected.items():
            for absolute in (False, True):
                method = {"name": "saliency", "channels": channels, "abs": absolute}
                attribution = explain(network, inputs, method, 1)["saliency"]
                assert torch.equal(attribution.map, values.abs() if absolute else values)
                signed = not absolute and channels != "sum_abs"
                assert attribution.method.properties().sign == ("signed" if signed else "absolute")

    def test_smoothgrad_applies_the_post_steps_of_its_method(self) -> None:
        """|M| is averaged, not |mean of M|."""
        inputs, network = images(2, 2), classifier(2, 2)
        inner = {"name": "saliency", "abs": True, "channels": "max_abs"}
        method = {"name": "smoothgrad", "of": inner, "samples": 5, "sigma": 2.0}
        actual = explain(network, inputs, method, 1)["smoothgrad_saliency"].map
        assert actual.shape == (1, 1, 6, 6)
        outside = {"name": "smoothgrad", "of": "saliency", "samples": 5, "sigma": 2.0, "abs": True}
        outer = explain(network, inputs, outside, 1)["smoothgrad_saliency"].map
        assert (actual >= outer.amax(1, keepdim=True) - 1e-6).all()
        assert not torch.allclose(actual, outer.amax(1, keepdim=True))


class TestTargets:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (2, Label(label=2)),
            ("2", Label(label=2)),
            ("pixelwise:1", Pixelwise(label=1)),
            ("class_score", ClassScore()),
            ("class_score:predicted", ClassScore()),
            ({"kind": "class_score", "label": 1, "link": "log_odds"}, None),
            ({"kind": "unit", "layer": "conv", "channel": "strongest"}, None),
        ],
    )
    def test_what_people_write(self, given: Any, expected: Any) -> None:
        target = parse_target(given)
        assert expected is None or target == expected
        assert parse_target(target) is target
        assert parse_target(target.model_dump(mode="python")) == target

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ("pixelwize:1", r"unknown target 'pixelwize'; did you mean pixelwise\?"),
            ({"label": 1}, "unknown target None; known: "),
            ({"kind": "pixelwise"}, r"target\.(pixelwise\.)?label: [Ff]ield required"),
            (
                {"kind": "pixelwise", "label": 1, "lnk": "score"},
                r"target\..*lnk: unknown parameter of",
            ),
            (
                {"kind": "volume", "label": "x"},
                r"target\..*label: [Ii]nput should be a valid integer",
            ),
            (
                {"kind": "contrast", "a": {"kind": "volume", "label": 1}},
                r"target\..*b: [Ff]ield req",
            ),
            (
                {"kind": "class_score", "link": "logit"},
                r"target\..*link: [Ii]nput should be 'score'",
            ),
            (
                {"kind": "class_score", "threshold": 1.5},
                r"threshold: [Ii]nput should be less than 1",
            ),
        ],
    )
    def test_wrong(self, given: Any, words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            parse_target(given)

    def test_bare_labels_mean_what_the_output_is(self) -> None:
        scores, dense = torch.randn(2, 3), torch.randn(2, 3, 4, 4)
        bound = Label(label=1).bind(scores)
        assert torch.equal(bound.score(scores), ClassScore(label=1).bind(scores).score(scores))
        actual = Label(label=1).bind(dense).score(dense)
        assert torch.equal(actual, Pixelwise(label=1).bind(dense).score(dense))

    def test_slugs_are_different_and_safe(self) -> None:
        slugs = [
            parse_target(given).slug
            for given in (
                1,
                {"kind": "class_score", "label": 1, "link": "log_odds"},
                {"kind": "pixelwise", "label": 1, "link": "probability"},
                {"kind": "region", "label": 1, "component": 1},
                {"kind": "region", "label": 1, "component": 2},
                {"kind": "region", "label": 1, "box": [[1, 2], [3, 4]]},
                {"kind": "region", "label": 1, "voxel": [1, 2]},
                {"kind": "volume", "label": 1},
                {"kind": "unit", "layer": "enc1.conv", "channel": 4},
                {"kind": "error_region", "label": 1, "reference": "a.nii.gz", "error": "fn"},
            )
        ]
        assert slugs[0] == "1"
        assert len(set(slugs)) == len(slugs)
        assert all(re.fullmatch("[A-Za-z0-9_-]+", slug) for slug in slugs)
        assert "pixelwise" in str(Pixelwise(label=1))
        assert "conv" in str(Unit(layer="conv", channel=2))


class TestRequests:
    def test_images_with_nan(self) -> None:
        inputs = images()
        inputs[0, 0, 0, 0] = float("nan")
        with pytest.raises(
            InputError, match="the image holds 1 NaN or infinite values; replace them"
        ):
            explain(classifier(), inputs, "saliency", 1)

    @pytest.mark.parametrize("name", ["expected_gradients", "deep_lift_shap", "gradient_shap"])
    def test_references_that_are_missing(self, name: str) -> None:
        with pytest.raises(
            ConfigError, match="compares with other images and 0 are given; pass at lea"
        ):
            explain(classifier(), images(), name, 1)
        same = images().expand(3, -1, -1, -1)
        with pytest.raises(ConfigError, match="and 0 are given"):
            explain(classifier(), images(), name, 1, references=same)

    def test_references_on_another_grid(self) -> None:
        with pytest.raises(
            ConfigError, match=r"references of shape \(1, 7, 7\) for an image of shape"
        ):
            explain(classifier(), images(), "deep_lift_shap", 1, references=torch.rand(3, 1, 7, 7))

    def test_baselines_on_another_grid(self) -> None:
        method = {"name": "integrated_gradients", "baseline": torch.zeros(1, 7, 7)}
        with pytest.raises(
            ConfigError, match=r"a baseline of shape \(1, 7, 7\) for an image of shape"
        ):
            explain(classifier(), images(), method, 1)

    def test_forward_only_networks(self) -> None:
        network = classifier()
        network.differentiable = False
        with pytest.raises(ModelError, match="is a forward-only black box"):
            explain(network, images(), "saliency", 1)

    def test_several_images(self) -> None:
        inputs = images(batch=2)
        listed = [Image.from_array(row) for row in inputs]
        attributions = explain(
            classifier(), listed, ["saliency", "deep_lift_shap"], 1, references=listed * 2
        )
        batch = explain(classifier(), inputs, "saliency", 1)["saliency"].map
        assert len(attributions) == 2
        for one, row, image in zip(attributions, batch, listed, strict=True):
            torch.testing.assert_close(one["saliency"].map, row)
            assert one["saliency"].grid is image.grid
            assert set(one) == {"saliency", "deep_lift_shap"}

    def test_models_remember_their_name(self) -> None:
        attribution = explain(Model(classifier(), name="mine"), images(), "saliency", 1)["saliency"]
        assert attribution.model.name == "mine"
