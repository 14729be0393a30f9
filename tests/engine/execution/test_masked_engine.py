"""Masked streams end to end: batches, black boxes, noise, ranks and errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import assert_close, classifier, images, one_slice, segmenter, untouched
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.engine.memory import ForwardBudget
from voxplain.engine.randomness import GaussianNoise
from voxplain.errors import ConfigError, ModelError
from voxplain.models.loading.blackbox import BlackBox

METHODS: tuple[dict[str, Any], ...] = (
    {"name": "occlusion", "window": 3},
    {"name": "feature_ablation", "regions": {"kind": "blocks", "size": 2}},
    {"name": "feature_permutation", "regions": {"kind": "blocks", "size": 2}},
    {"name": "rise", "samples": 7},
    {"name": "mc_rise", "samples": 4},
    {"name": "score_cam", "weighting": "softmax"},
    {"name": "ablation_cam"},
    {"name": "layer_feature_ablation", "layers": "conv1"},
)
ON_THE_IMAGE = METHODS[:5]


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("size", [1, 3, 64])
def test_the_batch_size_does_not_matter(
    rank: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, shown = classifier(rank, 2).double(), images(rank, 2, 2).double()
    references = images(rank, 2, 4).double()[2:]
    expected = explain(network, shown, METHODS, 1, references=references)

    class Fixed(ForwardBudget):
        def __init__(self, *_: object) -> None:
            self.size, self._is_measured = size, True

    monkeypatch.setattr("voxplain.engine.execution.masked_runner.ForwardBudget", Fixed)
    with untouched(network):
        attributions = explain(network, shown, METHODS, 1, references=references)
    for key, attribution in expected.items():
        assert_close(attributions[key].map, attribution.map, 1e-11, key)


def test_batches_shrink_when_memory_runs_out() -> None:
    network, shown = classifier(2), images(2)
    expected = explain(network, shown, METHODS[0], 1)["occlusion"].map

    class Small(nn.Module):
        most = 0

        def forward(self, image: Tensor) -> Tensor:
            if len(image) > 3:
                raise RuntimeError("out of memory: tried to allocate a lot")
            Small.most = max(Small.most, len(image))
            return network(image)

    attribution_map = explain(Small(), shown, METHODS[0], 1)["occlusion"].map
    assert Small.most in (2, 3)
    assert_close(attribution_map, expected, 1e-6)


def test_errors_of_the_network_are_not_taken_for_out_of_memory() -> None:
    class Broken(nn.Module):
        calls = 0

        def forward(self, image: Tensor) -> Tensor:
            Broken.calls += 1
            if Broken.calls > 2:
                raise RuntimeError("something else")
            return image.flatten(1)[:, :2]

    with pytest.raises(ModelError, match="something else"):
        explain(Broken(), images(2), METHODS[0], 1)


class Closed(BlackBox):
    """A network that returns outputs without a graph or layers."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._network = [inner]  # in a list, which hides its layers

    def compute(self, inputs: Tensor) -> Tensor:
        return torch.from_numpy(self._network[0](inputs).numpy())


@pytest.mark.parametrize("rank", [2, 3])
def test_black_boxes(rank: int) -> None:
    network, shown = segmenter(rank, 2), images(rank, 2)
    references, target = images(rank, 2, 3)[1:], {"kind": "pixelwise", "label": 1}
    opened = explain(network, shown, ON_THE_IMAGE, target, references=references)
    closed = explain(Closed(network).eval(), shown, ON_THE_IMAGE, target, references=references)
    for key, attribution in opened.items():
        assert torch.equal(closed[key].map, attribution.map), key


def test_a_volume_of_one_slice_equals_the_slice() -> None:
    network, shown = classifier(2, 2).double(), images(2, 2).double()
    methods = [
        {**method, "fill": "noise"} if method["name"] == "rise" else method for method in METHODS
    ]
    references = images(2, 2, 3).double()[1:]
    flat = explain(network, shown, methods, 1, references=references)
    solid = explain(
        one_slice(network), shown[:, :, None], methods, 1, references=references[:, :, None]
    )
    for key, attribution in flat.items():
        assert_close(solid[key].map[:, :, 0], attribution.map, 1e-11, key)


def test_smoothgrad_of_occlusion_is_the_mean_over_noisy_copies() -> None:
    """Boxes and blur are those of the image; what is kept is noisy."""
    network, shown = classifier(2, 2).double(), images(2, 2).double()
    inner = {"name": "occlusion", "window": 3, "fill": "mean"}
    smoothgrad = {"name": "smoothgrad", "of": inner, "samples": 3, "sigma": 0.2}
    with untouched(network):
        attribution = explain(network, shown, smoothgrad, 1)["smoothgrad_occlusion"]
    noise = attribution.stats.streams[0]["noise"]
    assert noise["samples"] == 3
    plain = explain(network, shown, inner, 1)["occlusion"]
    assert not torch.allclose(attribution.map, plain.map)
    assert attribution.stats.passes == 3 * plain.stats.passes


def test_smoothgrad_of_occlusion_without_noise_is_occlusion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(GaussianNoise, "noise", lambda *_: torch.zeros(()))
    network, shown = classifier(2, 2).double(), images(2, 2).double()
    inner = {"name": "occlusion", "window": 3}
    smoothgrad = {"name": "smoothgrad", "of": inner, "samples": 3}
    attributions = explain(network, shown, [smoothgrad, inner], 1)
    assert_close(attributions["smoothgrad_occlusion"].map, attributions["occlusion"].map, 1e-12)


def test_permutation_without_another_case_is_an_error() -> None:
    method = {"name": "feature_permutation"}
    for references in (None, images(2)):  # the image itself does not count
        with pytest.raises(ConfigError, match="those of other cases, and none is given"):
            explain(classifier(2), images(2), method, 1, references=references)


def test_masks_that_change_nothing_are_not_run() -> None:
    """A filled box that equals the image, a dead channel, an empty part of the image."""
    network, shown = classifier(2), images(2)
    shown[..., :3, :] = 0
    calls: list[int] = []
    network.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    method = {"name": "feature_ablation", "regions": {"kind": "blocks", "size": 1}, "fill": 0}
    attribution = explain(network, shown, method, 1)["feature_ablation"]
    assert attribution.stats.passes == 18
    assert sum(calls) < 1 + 36
    assert not attribution.map[..., :3, :].any()
    assert attribution.map[..., 3:, :].all()


def test_progress_reports_every_masked_image() -> None:
    reported: list[tuple[int, int]] = []
    method = {"name": "occlusion", "window": 3, "fill": 0}
    explain(classifier(2), images(2), method, 1, progress=lambda *pair: reported.append(pair))
    assert reported[-1] == (9, 9)
    assert [done for done, _ in reported] == sorted({done for done, _ in reported})
