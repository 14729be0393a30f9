"""Networks that write into their input, whose images interact, or that draw random numbers."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from voxplain import Model, evaluate, explain
from voxplain.errors import ConfigError

BLOCKS = {"kind": "blocks", "size": 3}
METHODS: list[Any] = [
    "saliency",
    {"name": "integrated_gradients", "steps": 5},
    {"name": "layer_conductance", "layers": ["conv"], "steps": 4},
    {"name": "smoothgrad", "of": "saliency", "samples": 3},
    {"name": "occlusion", "window": 2, "stride": 2},
    {"name": "kernel_shap", "regions": BLOCKS},
    {"name": "score_cam", "layer": "conv"},
    {"name": "deep_lift"},
]


class _Net(nn.Module):
    """A convolution behind a first step, with class scores or a dense output."""

    def __init__(self, rank: int, first: Callable[[Tensor], Tensor], dense: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = (nn.Conv2d if rank == 2 else nn.Conv3d)(2, 3, 3, padding=1)
        self.first, self.dense = first, dense

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.first(x)).tanh()
        return x if self.dense else x.flatten(2).mean(2)


def _in_place(x: Tensor) -> Tensor:
    x -= 0.5
    return x.clamp_(-0.4, 2)


def _whole_tensor(x: Tensor) -> Tensor:
    return (x - x.mean()) / (x.std() + 1)


def _first_image(x: Tensor) -> Tensor:
    return x / (x[0].max() + 0.5)


SAME: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "in place": (_in_place, lambda x: (x - 0.5).clamp(-0.4, 2)),
    "whole tensor": (_whole_tensor, lambda x: torch.cat([_whole_tensor(i[None]) for i in x])),
    "first image": (_first_image, lambda x: torch.cat([_first_image(i[None]) for i in x])),
    "one image": (
        lambda x: x.squeeze(0)[None],
        lambda x: x,
    ),
}


def _images(rank: int, count: int = 2) -> Tensor:
    source = torch.Generator().manual_seed(rank)
    return torch.rand(count, 2, *(7, 6, 5)[:rank], generator=source) * 2


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("kind", list(SAME))
def test_maps_are_those_of_the_network_written_without_the_trait(kind: str, rank: int) -> None:
    images = _images(rank)
    given = images.clone()
    traits, plain = (_Net(rank, first).eval() for first in SAME[kind])
    found, right = (explain(network, images, METHODS, 1) for network in (traits, plain))
    assert torch.equal(images, given)
    for key, expected in right.items():
        torch.testing.assert_close(found[key].map, expected.map, rtol=1e-4, atol=1e-6)
    told = " ".join(found["saliency"].stats.warnings)
    assert ("alone" in told) == (kind != "in place")


@pytest.mark.parametrize("kind", list(SAME))
def test_windows_of_a_volume_are_as_those_of_the_network_without_the_trait(kind: str) -> None:
    image, found = _images(2, 1), []
    for first in SAME[kind]:
        model = Model(_Net(2, first, dense=True).eval(), window={"size": 4, "batch": 3})
        target = {"kind": "pixelwise", "label": 1, "activation": "softmax"}
        maps = explain(model, image, [*METHODS[:2], *METHODS[3:6]], target)
        scores = evaluate(model, image, {"m": image[0]}, ["deletion"], target, controls=False)
        found.append((maps, next(iter(scores)).value))
    (maps, value), (right, expected) = found
    assert value == pytest.approx(expected, rel=1e-4)
    for key in right:
        torch.testing.assert_close(maps[key].map, right[key].map, rtol=1e-4, atol=1e-6)


def test_images_keep_apart_in_ordinary_networks() -> None:
    model = Model(_Net(3, lambda x: x).eval())
    model.observe(_images(3, 1))
    assert not model.behavior.one_by_one
    assert not model.behavior.remarks


RANDOM: dict[str, Callable[[Tensor], Tensor]] = {
    "torch": lambda x: functional.dropout(x, 0.5, training=True),
    "numpy": lambda x: x * float(np.random.rand()),
    "python": lambda x: x * random.random(),
}


@pytest.mark.parametrize("kind", list(RANDOM))
def test_random_networks_draw_from_the_seed(kind: str) -> None:
    network, images = _Net(2, RANDOM[kind]).eval(), _images(2)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    methods = METHODS[:6]  # the others refuse dropout, or are zero where the convolution is
    first, again, other = (explain(network, images, methods, 1, seed=s) for s in (4, 4, 5))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())
    for key, found in first.items():
        assert torch.equal(found.map, again[key].map)
        assert not torch.equal(found.map, other[key].map)
        assert any("the network is random" in remark for remark in found.stats.warnings)
    path = first["integrated_gradients"].stats
    assert path.completeness is not None
    assert max(path.completeness) < 0.05  # one function, not another one at every point


def test_a_network_that_no_seed_fixes_is_said_to_be_so() -> None:
    own = torch.Generator().manual_seed(0)
    network = _Net(2, lambda x: x * torch.rand(1, generator=own)).eval()
    found = explain(network, _images(2), "saliency", 1)["saliency"]
    assert "no seed fixes it" in " ".join(found.stats.warnings)


def test_what_is_known_is_not_tried_again_until_the_network_changes() -> None:
    network, images, calls = _Net(2, lambda x: x).eval(), _images(2, 1), []
    network.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    explain(network, images, "saliency", 1)
    assert calls == [1, 2, 1]
    explain(network, images, "saliency", 1)
    assert calls[3:] == [1, 1]
    network.first = RANDOM["torch"]
    found = explain(network, images, "saliency", 1)["saliency"]
    assert "random" in " ".join(found.stats.warnings)


def test_float64_copies_follow_the_weights() -> None:
    model, images = Model(_Net(2, lambda x: x).eval()), _images(2).double()
    before = model.in_double().output(images)
    with torch.no_grad():
        next(model.network.parameters()).data.mul_(2)
    assert not torch.equal(before, model.in_double().output(images))


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown precision 'float46'.*float64"):
        Model(nn.Identity(), precision="float46")  # type: ignore[arg-type]


def test_integers_become_floating() -> None:
    image = torch.randint(0, 9, (1, 2, 5, 4), generator=torch.Generator().manual_seed(1))
    network = nn.Sequential(nn.Flatten(), nn.Softmax(1))
    found = explain(network, image, [METHODS[0], METHODS[4]], 1)
    right = explain(network, image.float(), [METHODS[0], METHODS[4]], 1)
    assert all(torch.equal(found[key].map, right[key].map) for key in right)


class _Counting(nn.Module):
    """A convolution that counts its calls, and may write its output into the same tensor."""

    def __init__(self, rank: int, first: Callable[[Tensor], Tensor], keeps: bool = False) -> None:
        super().__init__()
        self.inner, self.keeps = _Net(rank, first, dense=True), keeps
        self.calls: list[int] = []  # which is no state of the network
        self.kept = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        output = self.inner(x)
        if not self.keeps:
            return output
        return self.kept.resize_(output.shape).copy_(output)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("first", [lambda x: x + 1, _in_place, _whole_tensor])
def test_the_first_look_uses_the_output_that_told_the_behavior(
    rank: int, keeps: bool, first: Callable[[Tensor], Tensor]
) -> None:
    """A lone small volume is given twice, so that its output is the one beside another image."""
    network, image = _Counting(rank, first, keeps), _images(rank, 1)
    found = Model(network).output(image)
    calls = len(network.calls)
    expected = Model(network).output(image)  # its behavior is known by now
    assert len(network.calls) == calls + 1
    assert calls == (4 if first is _whole_tensor else 2)
    assert torch.equal(found, expected)


def test_the_first_look_at_a_damaged_image_is_its_own() -> None:
    image = _images(2, 1)
    image[..., 0, 0] = torch.nan
    assert bool(Model(_Counting(2, lambda x: x + 1)).output(image).isnan().any())
