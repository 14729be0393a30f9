"""Compiled networks answer and have gradients as the network they were compiled from."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import voxplain as vx
from voxplain.errors import ModelError, RuleError
from voxplain.models.loading import ModelSpec, load_network, weights_sha256
from voxplain.models.model import Model
from voxplain.models.programs import FixedProgram, ScriptProgram, as_module

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def network(rank: int = 2, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    convolution = {2: nn.Conv2d, 3: nn.Conv3d}[rank](1, 3, 3, padding=1)
    return nn.Sequential(convolution, nn.ReLU(), nn.Flatten(2)).eval()


def saved(script: Any) -> Any:
    buffer = io.BytesIO()
    torch.jit.save(script, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


def image(rank: int = 2) -> torch.Tensor:
    return torch.rand(1, 1, *(8, 7, 6)[:rank], generator=torch.Generator().manual_seed(1))


COMPILED: dict[str, Callable[[nn.Module, torch.Tensor], Any]] = {
    "script": lambda net, x: torch.jit.script(net),
    "traced": lambda net, x: torch.jit.trace(net, x),
    "frozen": lambda net, x: saved(torch.jit.freeze(torch.jit.script(net))),
    "exported": lambda net, x: torch.export.export(net, (x,)).module(),
    "program": lambda net, x: torch.export.export(net, (x,)),
}


class Scores(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).mean(-1)


@pytest.mark.parametrize("kind", COMPILED)
@pytest.mark.parametrize("rank", [2, 3])
def test_maps_are_those_of_the_network(kind: str, rank: int) -> None:
    net = Scores(network(rank)).eval()
    compiled = COMPILED[kind](net, image(rank))
    for method in ("saliency", {"name": "occlusion", "window": 4, "fill": "zero"}):
        right, found = (vx.explain(each, image(rank), method, 1) for each in (net, compiled))
        name = method if isinstance(method, str) else method["name"]
        torch.testing.assert_close(found[name].map, right[name].map, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", COMPILED)
@pytest.mark.parametrize("method", ["lrp", "guided_backprop", "deep_lift"])
def test_rules_that_cannot_look_inside_say_so(kind: str, method: str) -> None:
    compiled = COMPILED[kind](Scores(network()).eval(), image())
    with pytest.raises(RuleError, match="use the original Python module"):
        vx.explain(compiled, image(), method, 1)


@pytest.mark.parametrize("kind", COMPILED)
def test_layers_are_refused_in_words(kind: str) -> None:
    compiled = COMPILED[kind](Scores(network()).eval(), image())
    for layer in ("body.0", "script.body.0"):
        with pytest.raises(ModelError, match="layer"):
            vx.explain(compiled, image(), {"name": "grad_cam", "layer": layer}, 1)


@pytest.mark.parametrize("kind", COMPILED)
def test_they_are_copied_and_told_apart(kind: str) -> None:
    one, two = (as_module(COMPILED[kind](network(seed=seed), image())) for seed in (0, 1))
    assert isinstance(one, (ScriptProgram, FixedProgram))
    assert weights_sha256(one) != weights_sha256(two)
    torch.testing.assert_close(copy.deepcopy(one)(image()), one(image()))
    both = Model(one)(torch.cat([image(), 2 * image()]))
    torch.testing.assert_close(both, network()(torch.cat([image(), 2 * image()])))


def test_a_file_has_gradients_once_it_is_trusted(tmp_path: Path) -> None:
    net = Scores(network()).eval()
    torch.jit.script(net).save(str(tmp_path / "net.ts"))
    with pytest.raises(ModelError, match=r"TorchScript.*--trust"):
        load_network(ModelSpec(file="net.ts"), base=tmp_path)
    loaded = load_network(ModelSpec(file="net.ts"), trust=True, base=tmp_path)
    right, found = (vx.explain(each, image(), "saliency", 1)["saliency"] for each in (net, loaded))
    torch.testing.assert_close(found.map, right.map)


class TwoInputs(nn.Module):
    def forward(self, x: torch.Tensor, age: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) + age


@pytest.mark.parametrize("compiled", [False, True])
def test_a_network_of_several_inputs_is_told_the_wrapper(compiled: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = torch.jit.script(TwoInputs()) if compiled else TwoInputs()
    with pytest.raises(ModelError, match=r"takes more than the image \('age'\).*self\.net\(x, "):
        vx.explain(net, image(), "saliency", 1)
