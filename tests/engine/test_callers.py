"""Maps depend neither on the context of the call, nor on the kind of tensor or the mode."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest
import torch
from every_method import CLASS_ONE, NAMES, all_maps, one_map, setting
from networks import assert_close, classifier, images, untouched
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.engine.rules import Guided
from voxplain.errors import ModelError
from voxplain.models.model import Model


class TestCallers:
    """Maps are the same in every gradient mode and under a rule of the caller."""

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    @pytest.mark.parametrize("link", ["score", "probability", "log_odds"])
    def test_inside_modes_without_gradients(self, mode: Any, link: str) -> None:
        network, shown, references, _ = setting("classifier", 2)
        target = {**CLASS_ONE, "link": link}
        outside = all_maps(network, shown, references, target)
        with mode(), untouched(network):
            inside = all_maps(network, shown, references, target)
        for name in NAMES:
            assert torch.equal(outside[name].map, inside[name].map), name

    def test_a_network_made_in_inference_mode_is_refused(self) -> None:
        with torch.inference_mode():
            network = classifier()
        with pytest.raises(
            ModelError, match=r"Sequential was made or loaded under torch\.inference"
        ):
            explain(network, images(), "saliency", 1)

    def test_dense_outputs_inside_inference_mode(self) -> None:
        network, shown, references, _ = setting("segmenter", 2)
        window = Model(network, window={"size": 4, "overlap": 0.5})
        for model, target in (
            (network, {"kind": "threshold", "label": 1}),
            (network, {"kind": "volume", "label": 1}),
            (window, {"kind": "volume", "label": 1}),
            (network, {"kind": "unit", "layer": "conv1", "channel": "strongest"}),
        ):
            methods = ["saliency", {"name": "integrated_gradients", "steps": 3}, "deep_lift"]
            outside = explain(model, shown, methods, target, references=references)
            with torch.inference_mode():
                inside = explain(model, shown, methods, target, references=references)
            for key, attribution in outside.items():
                assert torch.equal(attribution.map, inside[key].map), (key, target)

    def test_images_made_in_inference_mode(self) -> None:
        network, shown, _, target = setting("classifier", 2)
        outside = explain(network, shown, "saliency", target)["saliency"].map
        with torch.inference_mode():
            made_inside = shown * 1
        assert torch.equal(
            explain(network, made_inside, "saliency", target)["saliency"].map, outside
        )

    def test_with_a_rule_active(self) -> None:
        """A rule of the caller does not leak into ours, nor ours into the caller's."""
        network, shown, _, target = setting("classifier", 2)
        outside = explain(network, shown, ["guided_backprop"], target)
        leaf = shown.clone().requires_grad_(True)
        (before,) = torch.autograd.grad(network(leaf)[:, 1].sum(), leaf)
        assert not torch.allclose(outside["guided_backprop"].map, before)
        (after,) = torch.autograd.grad(network(leaf)[:, 1].sum(), leaf)
        assert torch.equal(before, after)
        with Guided().mode():
            (guided,) = torch.autograd.grad(network(leaf)[:, 1].sum(), leaf)
        assert_close(guided, outside["guided_backprop"].map, 1e-6)


class TestInputs:
    """Maps are the same for every kind of tensor, and the tensor is not changed."""

    def flat_maps(self, image: Tensor, network: nn.Module | None = None, **options: Any) -> Tensor:
        methods = ["saliency", "input_x_gradient", "deep_lift", "grad_cam"]
        maps = explain(network or classifier(2, 2), image, methods, CLASS_ONE, **options)
        return torch.cat([maps[key].map.flatten() for key in methods])

    def test_flags_and_values_stay(self) -> None:
        shown = images(2, 2, 2)
        for requires in (False, True):
            given = shown.clone().requires_grad_(requires)
            version = given._version
            self.flat_maps(given)
            assert torch.equal(given.detach(), shown)
            assert given.requires_grad is requires
            assert given.grad is None
            assert given._version == version

    def test_an_image_inside_a_graph(self) -> None:
        shown = images(2, 2, 2).requires_grad_(True)
        (shown * 2).requires_grad_(True)
        assert_close(self.flat_maps(shown * 1), self.flat_maps(shown.detach()), 1e-6)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int16, torch.uint8])
    def test_types_become_that_of_the_network(self, dtype: torch.dtype) -> None:
        shown = (images(2, 2, 2) * 10).abs().to(dtype)
        assert_close(self.flat_maps(shown), self.flat_maps(shown.float()), 1e-6)

    def test_a_network_in_float64(self) -> None:
        network, shown = classifier(2, 2), images(2, 2, 2)
        double = classifier(2, 2).double()
        attribution = explain(double, shown, "saliency", CLASS_ONE)["saliency"]
        assert attribution.map.dtype == torch.float64
        assert_close(
            attribution.map, explain(network, shown, "saliency", CLASS_ONE)["saliency"].map
        )
        assert attribution.stats.streams[0]["precision"] == "float64"

    def test_subclasses_of_tensors_are_unwrapped(self) -> None:
        meta = pytest.importorskip("monai.data").MetaTensor
        network, shown, references, target = setting("classifier", 2)
        plain = all_maps(network, shown, references, target)
        wrapped = all_maps(network, meta(shown), meta(references), target)
        for name in NAMES:
            assert torch.equal(plain[name].map, wrapped[name].map), name
            assert type(wrapped[name].map) is Tensor, name
        baseline = meta(references[0])
        method = {"name": "integrated_gradients", "steps": 3, "baseline": baseline}
        attribution_map = explain(network, meta(shown), method, target)["integrated_gradients"].map
        method["baseline"] = references[0]
        expected = explain(network, shown, method, target)["integrated_gradients"].map
        assert torch.equal(attribution_map, expected)
        assert type(attribution_map) is Tensor

    def test_masks_in_targets_may_be_wrapped(self) -> None:
        meta = pytest.importorskip("monai.data").MetaTensor
        network, shown, _, _ = setting("segmenter", 2)
        mask = torch.zeros(6, 6, dtype=torch.bool)
        mask[1:3, 2:5] = True
        maps = [
            explain(network, shown, "saliency", {"kind": "region", "label": 1, "mask": each})
            for each in (mask, meta(mask))
        ]
        assert torch.equal(maps[0]["saliency"].map, maps[1]["saliency"].map)


class TestNetworks:
    """Maps are the same in every state of the network, and it keeps that state."""

    def test_mixed_modes_and_flags(self) -> None:
        network, shown, references, target = setting("classifier", 2)
        expected = all_maps(network, shown, references, target)
        network.train()
        network.conv1.eval()
        network.conv1.bias.requires_grad_(False)
        network.head.weight.requires_grad_(False)
        network.conv2.weight.grad = torch.ones_like(network.conv2.weight)
        handle = network.act2.register_forward_hook(lambda *_: None)
        with untouched(network):
            attributions = all_maps(network, shown, references, target)
        assert len(network.act2._forward_hooks) == 1
        handle.remove()
        for name in NAMES:
            assert torch.equal(attributions[name].map, expected[name].map), name

    def test_dropout_and_batch_norm_are_at_rest(self) -> None:
        network = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
            nn.Linear(64, 2),
        ).train()  # fmt: skip
        with untouched(network):
            first, second = (
                explain(network, images(2, 2, 2), "saliency", 1)["saliency"].map for _ in "ab"
            )
        assert torch.equal(first, second)

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("last", [0, 1, 2, 4])
    def test_nothing_is_left_after_an_error(self, name: str, last: int) -> None:
        """Wherever a forward fails: at first, while layers are listed, in a pass."""

        forwards = itertools.count()

        class Breaks(nn.Module):
            def forward(self, values: Tensor) -> Tensor:
                if next(forwards) >= last:
                    raise ValueError("from inside")
                return values

        network = nn.Sequential(classifier(2, 2), Breaks())
        failure = pytest.raises(ModelError, match="from inside")
        with untouched(network), failure if last < 2 else contextlib.suppress(ModelError):
            one_map(network, images(2, 2), images(2, 2, 4)[1:], name)
