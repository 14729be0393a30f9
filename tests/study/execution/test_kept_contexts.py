"""Tasks of one combination share what is found out about network and image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import TinyStudy
from torch import Tensor, nn

import voxplain as vx
from voxplain.attribution.explanation import explain_in
from voxplain.engine.context import Context
from voxplain.engine.method import parse_method
from voxplain.study import Study, check_study
from voxplain.study.execution.resources import CombinationSpec, LoadedResources
from voxplain.targets import parse_target

METHODS = ["saliency", "grad_cam", {"name": "smoothgrad", "samples": 3}, "occlusion", "lrp"]


class RandomNetwork(nn.Module):
    """Convolutions with dropout that is always on."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        torch.manual_seed(3)
        conv = (nn.Conv2d, nn.Conv3d)[rank - 2]
        self.first, self.last = conv(2, 5, 3, padding=1), conv(5, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = nn.functional.dropout(self.first(x).relu(), 0.3, training=True)
        output: Tensor = self.last(hidden)
        return output


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize(
    ("target", "window", "methods"),
    [
        ({"kind": "pixelwise", "label": 1}, None, METHODS),
        ({"kind": "pixelwise", "label": 1}, {"size": 8}, ["saliency", "integrated_gradients"]),
        ({"kind": "unit", "layer": "first", "channel": 2}, None, ["saliency"]),
    ],
)
def test_maps_on_one_context_are_those_of_one_call_each(
    rank: int, target: dict[str, Any], window: dict[str, Any] | None, methods: list[Any]
) -> None:
    image = torch.randn(1, 2, *(11, 13, 9)[:rank])
    model = vx.Model(RandomNetwork(rank), window=window)
    context = Context.open(model, image, 5)
    for method in map(parse_method, methods):
        (kept,) = explain_in(context, [method], parse_target(target), seed=5).values()
        (alone,) = vx.explain(model, image, method, target, seed=5).values()
        assert torch.equal(kept.map, alone.map), method.name
        assert kept[0].sidecar.target == alone[0].sidecar.target


@pytest.fixture
def loaded(tiny: TinyStudy) -> tuple[LoadedResources, list[CombinationSpec]]:
    checked = check_study(Study.load(tiny.write()))
    specs = [CombinationSpec.of(checked, each, tiny.run) for each in checked.combinations]
    return LoadedResources.of(checked), specs


def test_the_network_is_opened_once_for_a_combination(
    loaded: tuple[LoadedResources, list[CombinationSpec]],
) -> None:
    resources, (first, second, *_) = loaded
    context = resources.context(first)
    assert resources.context(first) is context
    other = resources.context(second)
    assert other is not context
    assert not torch.equal(other.inputs, context.inputs)
    assert resources.context(first) is not context


def test_it_is_opened_anew_when_its_weights_change(
    loaded: tuple[LoadedResources, list[CombinationSpec]],
) -> None:
    resources, (first, *_) = loaded
    before = resources.context(first)
    output = before.seen().output
    with torch.no_grad():
        resources.network(first).model.network.get_parameter("head.weight").mul_(2)
    after = resources.context(first)
    assert after is not before
    assert not torch.equal(after.seen().output, output)


def test_the_output_is_computed_again_only_for_layers_that_were_not_seen() -> None:
    network = RandomNetwork(2)
    context = Context.open(network, torch.randn(1, 2, 7, 9))
    calls: list[int] = []
    network.register_forward_hook(lambda *_: calls.append(1))
    on_output = parse_target({"kind": "pixelwise", "label": 1})
    on_layer = parse_target({"kind": "unit", "layer": "first", "channel": 2})
    first = context.seen([on_output])
    before = len(calls)
    assert context.seen([on_output]) is first
    assert len(calls) == before
    second = context.seen([on_layer])
    assert "first" in second.activations
    assert len(calls) > before
    assert context.seen([on_output]) is second
