"""Score-CAM, Ablation-CAM and feature ablation at layers, against their definitions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import assert_close, classifier, images, segmenter, untouched
from torch import Tensor, nn
from torch.nn import functional

from voxplain.attribution import explain
from voxplain.engine.masks.channel_groups import group_channels, group_sums
from voxplain.errors import ModelError
from voxplain.models.model import Model

every_rank = pytest.mark.parametrize("rank", [2, 3])
MODE = {2: "bilinear", 3: "trilinear"}


def _caught(network: nn.Module, layer: str, image: Tensor) -> Tensor:
    actual: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_hook(
        lambda _, __, output: actual.append(output.clone())
    )
    with torch.no_grad():
        network(image)
    handle.remove()
    return actual[0]


def _masks(activation: Tensor, size: tuple[int, ...]) -> Tensor:
    """Every channel upsampled and scaled to [0, 1], ``(K, 1, *spatial)``; constant ones are 0."""
    up = functional.interpolate(activation, size, mode=MODE[len(size)]).transpose(0, 1)
    low, high = (getattr(up.flatten(1), end)(1) for end in ("amin", "amax"))
    low, span = (part.view(-1, *(1,) * (up.ndim - 1)) for part in (low, high - low))
    return torch.where(span > 0, (up - low) / span.clamp_min(1e-30), 0)


def _ours(network: nn.Module, image: Tensor, method: dict[str, Any], target: Any = 1) -> Tensor:
    with untouched(network):
        return explain(network, image, method, target)[method["name"]].map


@every_rank
@pytest.mark.parametrize("weighting", ["increase", "softmax"])
@pytest.mark.parametrize(("halve", "layer"), [(False, "act2"), (True, "act2"), (False, "conv2")])
def test_score_cam_is_its_definition(rank: int, weighting: str, halve: bool, layer: str) -> None:
    """ReLU(sum_k w_k A_k), w_k from S(x * up(A_k)); of softmax as in pytorch-grad-cam."""
    network, image = classifier(rank, 2, halve=halve).double(), images(rank, 2).double()
    activation = _caught(network, layer, image)
    masks = _masks(activation, tuple(image.shape[2:]))
    with torch.no_grad():
        scores = network(image * masks)[:, 1]
        empty = network(torch.zeros_like(image))[0, 1]
    weights = functional.relu(scores - empty)
    weights = scores.softmax(0) if weighting == "softmax" else weights / weights.sum()
    cam = functional.relu(torch.einsum("k,k...->...", weights, activation[0]))
    expected = functional.interpolate(cam[None, None], tuple(image.shape[2:]), mode=MODE[rank])
    actual = _ours(network, image, {"name": "score_cam", "weighting": weighting, "layer": layer})
    assert_close(actual, expected, 1e-10)


@every_rank
@pytest.mark.parametrize("level", [0.0, 0.1, "mean"])
@pytest.mark.parametrize("layer", ["act1", "conv2"])
def test_ablation_cam_is_its_definition(rank: int, level: Any, layer: str) -> None:
    network, image = classifier(rank, 2).double(), images(rank, 2).double()
    activation, score, drops = _effects(network, layer, image, level)
    weights = drops / abs(score)
    cam = torch.einsum("k,k...->...", weights, activation[0])
    spec = {"name": "ablation_cam", "layer": layer, "level": level}
    assert_close(_ours(network, image, spec)[0, 0], functional.relu(cam), 1e-10)
    assert_close(_ours(network, image, {**spec, "relu": False})[0, 0], cam, 1e-10)
    effects = {"name": "layer_feature_ablation", "layers": layer, "level": level}
    column = drops.view(-1, *(1,) * rank)
    assert_close(_ours(network, image, effects)[0], column.expand_as(activation[0]), 1e-10)


def _effects(
    network: nn.Module, layer: str, image: Tensor, level: Any
) -> tuple[Tensor, float, Tensor]:
    """The activation, S, and S - S_k with channel k replaced in a hook."""
    activation = _caught(network, layer, image)
    drops = []
    with torch.no_grad():
        score = float(network(image)[0, 1])
    for channel in range(activation.shape[1]):

        def replace(_: nn.Module, __: Any, output: Tensor, channel: int = channel) -> Tensor:
            changed = output.clone()
            part = changed[:, channel]
            changed[:, channel] = part.mean() if level == "mean" else level
            return changed

        handle = network.get_submodule(layer).register_forward_hook(replace)
        with torch.no_grad():
            drops.append(score - float(network(image)[0, 1]))
        handle.remove()
    return activation, score, torch.tensor(drops, dtype=activation.dtype)


def test_a_negative_score_turns_no_sign() -> None:
    """A drop of the score without a channel is evidence, whatever the sign of S."""
    network, image = classifier(2).double(), images(2).double()
    with torch.no_grad():
        network.head.bias[1] -= 100
    _, score, drops = _effects(network, "act2", image, 0.0)
    assert score < 0
    attribution = explain(network, image, {"name": "ablation_cam", "layer": "act2"}, 1)[
        "ablation_cam"
    ]
    listed = {
        tuple(one["channels"]): one["value"] for one in attribution.stats.findings[0]["channels"]
    }
    for channel, drop in enumerate(drops.tolist()):
        assert listed.get((channel,), 0.0) == pytest.approx(drop / -score)


@every_rank
def test_segmentations(rank: int) -> None:
    network, image = segmenter(rank, 2).double(), images(rank, 2).double()
    target = {"kind": "region", "label": 1, "box": [[1, 5]] * rank}
    box = (slice(1, 5),) * rank
    activation = _caught(network, "act2", image)
    masks = _masks(activation, tuple(image.shape[2:]))
    with torch.no_grad():
        scores = network(image * masks)[:, 1][(..., *box)].flatten(1).sum(1)
        empty = network(torch.zeros_like(image))[0, 1][box].sum()
    weights = functional.relu(scores - empty)
    expected = torch.einsum("k,k...->...", weights / weights.sum().clamp_min(1e-30), activation[0])
    spec = {"name": "score_cam", "layer": "act2"}
    if not weights.any():
        (actual,) = explain(network, image, spec, target).values()
        assert not actual.map.any()
        assert "no channel by itself" in actual.stats.findings[0]["note"]
        return
    assert_close(_ours(network, image, spec, target)[0, 0], functional.relu(expected), 1e-10)


def test_no_channel_raises_the_score() -> None:
    class Dark(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Conv2d(1, 3, 1)

        def forward(self, image: Tensor) -> Tensor:
            scores = -self.features(image).abs().flatten(2).sum(2)
            return torch.stack([-scores.sum(1), scores.sum(1)], 1)

    network = Dark()
    with torch.no_grad():
        network.features.bias.zero_()
    (actual,) = explain(
        network, images(2).abs(), {"name": "score_cam", "layer": "features"}, 1
    ).values()
    assert not actual.map.any()
    assert "no channel by itself" in actual.stats.findings[0]["note"]


def test_the_unmasked_image_is_not_run_for_idle_channels() -> None:
    """A dead channel of a rectifier is no mask, and replacing it by 0 changes nothing."""
    network, image = classifier(2), images(2)
    with torch.no_grad():
        network.conv2.bias[:3] = -1e3
    ablation, score = explain(
        network, image, [{"name": "ablation_cam"}, {"name": "score_cam"}], 1
    ).values()
    assert ablation.stats.passes == 3
    assert score.stats.passes == 4  # three channels, and nothing


def test_ablation_methods_of_a_layer_share_their_forwards() -> None:
    specs = [
        {"name": "ablation_cam", "layer": "act1"},
        {"name": "layer_feature_ablation", "layers": "act1"},
    ]
    attributions = explain(classifier(2), images(2), specs, 1)
    assert attributions["ablation_cam"].stats.shared_with == ("layer_feature_ablation",)


@every_rank
@pytest.mark.parametrize("name", ["score_cam", "ablation_cam"])
def test_grouped_channels(rank: int, name: str) -> None:
    """As many groups as channels change nothing; fewer groups take fewer forwards."""
    network, image = classifier(rank, 2).double(), images(rank, 2).double()
    spec: dict[str, Any] = {"name": name, "layer": "conv1"}
    if name == "score_cam":
        spec["weighting"] = "softmax"
    single = explain(network, image, spec, 1)[name]
    assert torch.equal(_ours(network, image, {**spec, "max_channels": 4}), single.map)
    few = explain(network, image, {**spec, "max_channels": 2}, 1)[name]
    assert few.stats.passes == single.stats.passes - 2
    pair = torch.stack([few.map.flatten(), single.map.flatten()])
    assert float(torch.corrcoef(pair)[0, 1]) > 0.5


def test_groups_are_those_that_light_up_together() -> None:
    torch.manual_seed(0)
    patterns = torch.randn(3, 8, 8)
    activation = torch.stack(
        [patterns[index] * scale + 9 for index, scale in ((0, 1), (1, 2), (0, 5), (2, 1), (1, 0.1))]
        + [torch.full((8, 8), 4.0)]
    )
    activation += 1e-3 * torch.randn_like(activation)
    activation[-1] = 4.0
    assert group_channels(activation, 4) == ((0, 2), (1, 4), (3,), (5,))
    assert group_channels(activation) == tuple((channel,) for channel in range(6))
    sums = group_sums(activation, ((0, 2), (5,)))
    assert torch.equal(sums[0], activation[0] + activation[2])
    assert len(group_channels(activation, 1)) == 1 or group_channels(activation, 1)[-1] == (5,)


class Tokens(nn.Module):
    """A small transformer: patches as tokens after a class token, mixed by attention."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.patches = getattr(nn, f"Conv{rank}d")(1, 8, 2, 2)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1)
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return self.head(functional.gelu(self.mix(mixed + tokens)).mean(1))


@every_rank
@pytest.mark.parametrize("level", [0.0, "mean"])
def test_a_channel_is_replaced_in_all_tokens(rank: int, level: Any) -> None:
    """Of patches and of the class token, by the mean over the patches."""
    network, image = Tokens(rank).double().eval(), images(rank, size=6).double()
    with torch.no_grad():
        score = network(image)[0, 1]
    drops = []
    for channel in range(8):

        def replace(_: nn.Module, __: Any, output: Tensor, channel: int = channel) -> Tensor:
            changed = output.clone()
            patches = changed[:, 1:, channel]
            changed[:, :, channel] = patches.mean() if level == "mean" else level
            return changed

        handle = network.mix.register_forward_hook(replace)
        with torch.no_grad():
            drops.append(float(score - network(image)[0, 1]))
        handle.remove()
    spec = {"name": "layer_feature_ablation", "layers": "mix", "level": level}
    actual = _ours(network, image, spec)[0]
    assert actual.shape == (8, *(3,) * rank)
    expected = torch.tensor(drops).double().view(8, *(1,) * rank).expand_as(actual)
    assert_close(actual, expected, 1e-6)
    for name in ("score_cam", "ablation_cam"):
        cam = _ours(network, image, {"name": name, "layer": "mix", "relu": False})
        assert cam.shape == image.shape
        assert float(cam.std()) > 0


class Twice(nn.Module):
    """A rectifier that is called twice; the last call is read."""

    def __init__(self, reuse: bool) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.second = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.act = nn.ReLU()
        self.other = self.act if reuse else nn.ReLU()
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.act(self.second(self.other(self.first(image))))).flatten(2).mean(2)


@pytest.mark.parametrize("name", ["score_cam", "ablation_cam", "layer_feature_ablation"])
def test_a_layer_that_is_called_twice(name: str) -> None:
    layer = "layers" if name == "layer_feature_ablation" else "layer"
    relu = {} if layer == "layers" else {"relu": False}
    spec = {"name": name, layer: "act", **relu}
    actual = _ours(Twice(reuse=True), images(2), spec)
    assert_close(actual, _ours(Twice(reuse=False), images(2), spec), 1e-6)
    first = _ours(Twice(reuse=True), images(2), {**spec, layer: "act#0"})
    assert_close(first, _ours(Twice(reuse=False), images(2), {**spec, layer: "other"}), 1e-6)


def test_a_layer_that_is_called_twice_in_windows_is_refused() -> None:
    class Dense(Twice):
        def forward(self, image: Tensor) -> Tensor:
            return self.head(self.act(self.second(self.other(self.first(image)))))

    model = Model(Dense(reuse=True), window={"size": 4})
    with pytest.raises(ModelError, match="called 2 times in every window"):
        explain(
            model,
            images(2),
            {"name": "ablation_cam", "layer": "act"},
            {"kind": "volume", "label": 1},
        )


def test_the_input_of_a_layer() -> None:
    network, image = classifier(2, 2).double(), images(2, 2).double()
    for name in ("score_cam", "ablation_cam"):
        before = _ours(network, image, {"name": name, "layer": "act2", "relu": False})
        entering = {"name": name, "layer": "conv2", "side": "input", "relu": False}
        after = {"name": name, "layer": "act1", "relu": False}
        assert_close(_ours(network, image, entering), _ours(network, image, after), 1e-12)
        assert not torch.allclose(before, _ours(network, image, entering))


def test_a_layer_without_places_is_refused_in_words() -> None:
    with pytest.raises(ModelError, match="no places in the image left"):
        explain(classifier(2), images(2), {"name": "score_cam", "layer": "head"}, 1)
    actual = _ours(classifier(2), images(2), {"name": "layer_feature_ablation", "layers": "head"})
    assert actual.shape[:2] == (1, 3)
