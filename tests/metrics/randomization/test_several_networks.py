"""Networks of a cascade share modules before their first difference, and maps stay the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from metric_cases import CLASS_ONE, explained
from networks import assert_close, classifier, images, segmenter, untouched
from torch import Tensor, nn
from torch.nn import functional

from voxplain.engine.acceleration.forward_trace import trace
from voxplain.engine.randomization.stages import Order
from voxplain.engine.taps import Tap
from voxplain.metrics import MetricContext
from voxplain.metrics.randomization import stages
from voxplain.metrics.randomization.randomized_networks import UnchangedModules, randomized
from voxplain.metrics.re_explain import explain_again, explain_networks
from voxplain.models.model import Model

PATH = {"name": "integrated_gradients", "steps": 4}
OBJECT = {"kind": "pixelwise", "label": 1}
ORDERS: tuple[Order, ...] = ("top_down", "bottom_up", "independent")


class Counting(nn.Module):
    """Passes values on, and counts how often."""

    calls = 0

    def forward(self, values: Tensor) -> Tensor:
        type(self).calls += len(values)
        return values * 1.0


class Residual(nn.Module):
    """A block that rectifies its input in place and adds to its output in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, values: Tensor) -> Tensor:
        values = functional.relu(values, inplace=True)
        kept = self.second(self.act(self.norm(self.first(values))))
        kept += values
        return kept


class Stateful(nn.Module):
    """An encoder that keeps a skip connection as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.skips: list[Tensor] = []

    def forward(self, values: Tensor) -> Tensor:
        self.skips = [values]
        return self.conv(values)


class Awkward(nn.Module):
    """Everything that makes it dangerous to share outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Identity())
        self.block = Residual()
        self.encoder = Stateful()
        self.twice = nn.Conv2d(4, 4, 1)
        self.act = nn.ReLU()
        self.tied = nn.Linear(4, 4)
        self.late = nn.Linear(4, 4)
        self.late.weight = self.tied.weight
        self.head = nn.Linear(4, 3)

    def forward(self, image: Tensor) -> Tensor:
        values = self.block(self.stem(image))
        values = self.act(self.twice(self.act(self.twice(self.encoder(values)))))
        values = values + self.encoder.skips[0]
        pooled = values.mean(dim=(2, 3))
        return self.head(self.late(torch.tanh(self.tied(pooled))))


def _networks(
    context: MetricContext, order: Order, seed: int = 0
) -> tuple[list[Any], UnchangedModules]:
    model, example = context.engine.model, context.engine.example
    traced = trace(model, example)
    groups = [(path,) for path in stages(model, example, traced)]
    networks = list(randomized(model, groups, order, seed, example))
    return networks, UnchangedModules(traced, networks, example)


def _both_ways(context: MetricContext, order: Order) -> None:
    """Networks together give the maps that they give one by one."""
    networks, shared = _networks(context, order)
    contexts = [context.with_model(each.model) for each in networks]
    image, methods = context.input.image[None], context.methods
    together = explain_networks(contexts, image, methods, shared)
    for own_context, maps in zip(contexts, together, strict=True):
        alone = explain_again(own_context, image, methods)
        assert maps.keys() == alone.keys()
        for name in alone:
            if float(alone[name].abs().max()) == 0:
                assert torch.equal(maps[name], alone[name]), name
            else:
                assert_close(maps[name], alone[name], 1e-5, name)


METHODS: list[Any] = [
    "saliency",
    PATH,
    {"name": "smoothgrad", "of": "input_x_gradient", "samples": 3},
    {"name": "guided_backprop", "label": "guided"},
    {"name": "smoothgrad", "of": "guided_backprop", "samples": 4, "label": "noisy guided"},
    {"name": "deep_lift", "baseline": "zero"},
    {"name": "guided_integrated_gradients", "steps": 4},
    {"name": "occlusion", "incremental": "off"},
    {"name": "lrp", "label": "lrp"},
]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("make", [classifier, segmenter])
def test_networks_together_equal_networks_one_by_one(
    make: Callable[..., nn.Sequential], rank: int, order: Order
) -> None:
    network = make(rank, 2)
    target = CLASS_ONE if make is classifier else OBJECT
    with untouched(network):
        context = explained(network, images(rank, 2)[0], *METHODS, target=target)
        _both_ways(context, order)


@pytest.mark.parametrize("order", ORDERS)
def test_networks_that_write_in_place_and_keep_things_are_explained_right(order: Order) -> None:
    network = Awkward().eval()
    with torch.no_grad():
        network(images(2))
    with untouched(network):
        _both_ways(explained(network, images(2)[0], *METHODS[:5], METHODS[7]), order)


@pytest.mark.parametrize("order", ORDERS)
def test_windows_share_too(order: Order) -> None:
    model = Model(segmenter(2), window={"size": 4, "overlap": 0.5})
    _both_ways(explained(model, images(2, size=7)[0], *METHODS[:4], target=OBJECT), order)


def test_maps_at_layers_are_those_of_each_network() -> None:
    context = explained(classifier(2), images()[0], "grad_cam", PATH, "layer_cam")
    _both_ways(context, "top_down")


def _counted(network: nn.Sequential) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Sequential(Counting(), module) for module in network.children())
    ).eval()


@pytest.mark.parametrize(
    ("method", "points"), [(PATH, 4), ({"name": "occlusion", "incremental": "off"}, 36)]
)
def test_modules_before_the_first_difference_run_once(method: dict[str, Any], points: int) -> None:
    """Three networks: without head; and conv2; and conv1. Each layer counts what reaches it."""
    context = explained(_counted(classifier(2)), images()[0], method)
    networks, shared = _networks(context, "top_down")
    contexts = [context.with_model(each.model) for each in networks]
    assert shared(0, ())  # tries it out

    def cost(sharing: UnchangedModules | None) -> int:
        before = Counting.calls
        explain_networks(contexts, context.input.image[None], context.methods, sharing)
        return Counting.calls - before

    spared = 3 + 1  # conv1, act1 and what enters conv2 of the second; what enters conv1 of the last
    assert cost(None) - cost(shared) == spared * points


def test_a_trace_lists_untouched_modules() -> None:
    network, example = classifier(2), images()
    traced = trace(Model(network), example)
    assert traced.untouched(("head",)) == {"conv1", "act1", "conv2", "act2"}
    assert traced.untouched(("conv2",)) == {"conv1", "act1"}
    assert traced.untouched(("conv1",)) == frozenset()
    assert traced.untouched(("head",), [Tap("conv2")]) == {"conv1", "act1"}
    assert traced.untouched(("head",), [Tap("act1", "input")]) == {"conv1"}
    assert traced.untouched(("head",), [Tap("elsewhere")]) == frozenset()


def test_a_trace_leaves_out_modules_whose_outputs_cannot_be_shared() -> None:
    network = Awkward().eval()
    traced = trace(Model(network), images(2))
    untouched = traced.untouched(("head",))
    assert {"tied", "late", "block.first"} <= untouched
    for path in ("stem.1", "stem", "block", "block.act", "encoder", "twice", "act", "head", ""):
        assert path not in untouched, path
    assert "tied" not in traced.untouched(("late",))  # they share their weight


def test_networks_whose_outputs_change_by_sharing_share_nothing() -> None:
    """Tracing one forward cannot reveal that outputs depend on the number of calls."""

    class Moody(nn.Module):
        seen: dict[str, int] = {"calls": 0}  # noqa: RUF012 - that is what is wrong with it

        def forward(self, values: Tensor) -> Tensor:
            self.seen["calls"] += 1
            return values * self.seen["calls"]

    network = nn.Sequential(nn.Conv2d(1, 2, 3), Moody(), nn.Flatten(), nn.Linear(32, 2)).eval()
    model, example = Model(network), images(2)
    networks = list(randomized(model, [("0",), ("3",)], "top_down", 0, example))
    assert not UnchangedModules(trace(model, example), networks, example)(0, ())
