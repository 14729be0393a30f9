"""Masked volumes in windows: running the touched windows alone changes no map."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from networks import assert_close, untouched
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.engine.masks import Boxes, SlidingBox
from voxplain.models.model import Model

LINEAR = {"kind": "pixelwise", "label": 1}
PROBABILITY = {"kind": "volume", "label": 1}
FOLLOWING = {"kind": "pixelwise", "label": 1, "follow": True}
BOX = {"kind": "region", "label": 1, "box": [[0, 3], [0, 3], [0, 3]]}
METHODS: tuple[dict[str, Any], ...] = (
    {"name": "occlusion", "window": 4, "fill": "mean"},
    {"name": "feature_ablation", "regions": {"kind": "blocks", "size": 3}},
    {"name": "feature_ablation", "regions": "channels", "label": "channels"},
    {"name": "rise", "samples": 6},
    {"name": "score_cam", "layer": "act", "weighting": "softmax", "relu": False},
    {"name": "ablation_cam", "layer": "act", "relu": False},
    {"name": "layer_feature_ablation", "layers": "conv"},
)


class Dense(nn.Module):
    """Every output depends on the whole window through a norm, so windows change the output.

    Attributes:
        windows_run: How many windows it was called with.
    """

    def __init__(self, rank: int) -> None:
        super().__init__()
        torch.manual_seed(rank)
        conv = getattr(nn, f"Conv{rank}d")
        self.conv = conv(2, 4, 3, padding=1)
        self.norm = getattr(nn, f"InstanceNorm{rank}d")(4)
        self.act = nn.ReLU()
        self.head = conv(4, 3, 1)
        self.windows_run = 0

    def forward(self, image: Tensor) -> Tensor:
        self.windows_run += len(image)
        output = self.head(self.act(self.norm(self.conv(image))))
        return output - output.mean(dim=tuple(range(2, output.ndim)), keepdim=True)


def _case(rank: int, batch: int = 1) -> tuple[Dense, Model, Tensor]:
    network = Dense(rank).double().eval()
    size, shape = (6, (13, 9)) if rank == 2 else (5, (9, 7, 6))
    model = Model(network, window={"size": size, "overlap": 0.4, "batch": batch})
    return network, model, torch.randn(1, 2, *shape, dtype=torch.float64)


class Assembled(nn.Module):
    """The same windows inside one module: everything is computed for every mask."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.inner = model.network

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([self.model.output(single[None]) for single in image])


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("target", [LINEAR, PROBABILITY, FOLLOWING], ids=str)
@pytest.mark.parametrize("batch", [1, 4])
def test_touched_windows_give_what_all_windows_give(
    rank: int, target: dict[str, Any], batch: int
) -> None:
    network, model, image = _case(rank, batch)
    with untouched(network):
        windowed = explain(model, image, METHODS[:4], target)
    whole = explain(Assembled(model).eval(), image, METHODS[:4], target)
    for key, attribution in whole.items():
        assert_close(windowed[key].map, attribution.map, 1e-10, key)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("target", [LINEAR, PROBABILITY], ids=str)
def test_channels_of_a_layer_in_windows(rank: int, target: dict[str, Any]) -> None:
    """Channels that are replaced in every window; the weights are those of the whole volume."""
    network, model, image = _case(rank)
    with untouched(network):
        attributions = explain(model, image, METHODS[4:], target)
    bound = explain(model, image, "occlusion", target)["occlusion"].stats.scores[0]
    drops = []
    for channel in range(4):
        network.conv.register_forward_hook(_without(channel))
        with torch.no_grad():
            output = model.output(image)
        network.conv._forward_hooks.clear()
        drops.append(bound - float(_score(output, model.output(image), target)))
    map = attributions["layer_feature_ablation"].map[0]
    assert map.shape == (4, *image.shape[2:])
    expected = torch.tensor(drops, dtype=torch.float64).view(-1, *(1,) * rank).expand_as(map)
    assert_close(map, expected, 1e-10)
    for key in ("score_cam", "ablation_cam"):
        assert attributions[key].map.shape == (1, 1, *image.shape[2:])
        assert float(attributions[key].map.std()) > 0


def _without(channel: int) -> Any:
    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        changed = output.clone()
        changed[:, channel] = 0
        return changed

    return hook


def _score(output: Tensor, unperturbed: Tensor, target: dict[str, Any]) -> Tensor:
    if target is PROBABILITY:
        return output.softmax(1)[:, 1].sum()
    return (output[:, 1] * (unperturbed.argmax(1) == 1)).sum()


def test_one_window_over_everything_is_the_whole() -> None:
    network, _, image = _case(2)
    model = Model(network, window={"size": (13, 9), "blend": "constant"})
    windowed = explain(model, image, METHODS, PROBABILITY)
    whole = explain(network, image, METHODS, PROBABILITY)
    for key, attribution in whole.items():
        assert_close(windowed[key].map, attribution.map, 1e-10, key)


@pytest.mark.parametrize("target", [LINEAR, PROBABILITY], ids=str)
def test_only_touched_windows_are_computed(target: dict[str, Any]) -> None:
    """Beside a window alone and beside another, the look at the image and a pass over windows."""
    network, model, image = _case(3)
    layout = model.layout(image[0])
    assert layout is not None
    sampler = SlidingBox(2, 2)
    context: Any = SimpleNamespace(shape=tuple(image.shape[2:]), spacing=None)
    masks = sampler.masks(None, context)  # type: ignore[arg-type]
    assert isinstance(masks, Boxes)
    touched = sum(len(list(masks.touched(index, layout))) for index in range(len(masks)))
    network.windows_run = 0
    explain(model, image, {"name": "occlusion", "window": 2, "stride": 2, "fill": 0}, target)
    assert network.windows_run == 3 + touched + 2 * len(layout)
    assert touched < 0.5 * len(masks) * len(layout)


def test_windows_that_do_not_see_the_target_are_left_out() -> None:
    network, model, image = _case(3)
    method = {"name": "occlusion", "window": 2, "stride": 2, "fill": 0}
    explain(model, image, method, LINEAR)
    everywhere, network.windows_run = network.windows_run, 0
    attribution_map = explain(model, image, method, BOX)["occlusion"].map
    assert network.windows_run < 0.5 * everywhere
    whole = explain(Assembled(model).eval(), image, method, BOX)["occlusion"].map
    assert_close(attribution_map, whole, 1e-10)
