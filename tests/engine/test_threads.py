"""Several threads explain one network: each gets its own map, and the network stays as it was."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import pytest
import torch
import torch.utils.checkpoint as checkpointing
from networks import classifier, images, untouched
from threads import in_thread, in_threads
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import voxplain as vx
from voxplain.attribution import explain
from voxplain.engine.acceleration.forward_trace import trace
from voxplain.engine.rules import guard
from voxplain.engine.rules.call_recorder import recorded_calls
from voxplain.engine.rules.visibility import GuardRecord
from voxplain.engine.taps import Tap, tapping
from voxplain.models.geometry.follow import follow_network
from voxplain.models.model import Model

CLASS_ONE: dict[str, Any] = {"kind": "class_score", "label": 1}
REPLACED = ("CheckpointFunction", "_checkpoint_without_reentrant_generator")


class Slow(nn.Module):
    """In training mode, with a batch norm, a checkpoint and time for other threads."""

    def __init__(self, reentrant: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv1, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.act1, self.conv2, self.act2 = nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()
        self.head, self.reentrant = nn.Linear(4, 3), reentrant

    def inner(self, features: Tensor) -> Tensor:
        return self.act2(self.conv2(features))

    def forward(self, image: Tensor) -> Tensor:
        time.sleep(0.001)
        features = self.act1(self.norm(self.conv1(image)))
        inner = checkpoint(self.inner, features, use_reentrant=self.reentrant)
        time.sleep(0.001)
        return self.head(inner.mean((2, 3)))


def test_two_explanations_that_overlap_leave_the_network_as_it_was() -> None:
    network, shown = Slow().train(), images(size=8)

    def run(steps: int) -> None:
        explain(network, shown, {"name": "integrated_gradients", "steps": steps}, 1, memory=1)

    with untouched(network):
        first = threading.Thread(target=run, args=(10,))
        first.start()
        time.sleep(0.01)
        second = threading.Thread(target=run, args=(20,))
        second.start()
        first.join()
        second.join()


FAMILIES: list[list[Any]] = [
    ["saliency", {"name": "layer_gradient_x_activation", "layers": "act2"}],
    ["guided_backprop", {"name": "layer_activation", "layers": "act1"}],
    [{"name": "lrp", "composite": "epsilon_plus"}, {"name": "grad_cam", "layer": "act1"}],
    [{"name": "occlusion", "window": 4, "stride": 2}, "deep_lift"],
]


def test_four_threads_get_the_maps_of_one() -> None:
    network, shown = Slow().train(), images(size=8)
    model, replaced = Model(network), [getattr(checkpointing, name) for name in REPLACED]

    def maps_of(methods: list[Any]) -> list[Tensor]:
        return [
            attribution.map
            for _ in range(3)
            for attribution in explain(model, shown, methods, CLASS_ONE).values()
        ]

    alone = [maps_of(methods) for methods in FAMILIES]
    with untouched(network):
        together = in_threads([lambda methods=methods: maps_of(methods) for methods in FAMILIES])
    for expected, maps in zip(alone, together, strict=True):
        for expected_map, attribution_map in zip(expected, maps, strict=True):
            assert torch.equal(expected_map, attribution_map)
    assert [getattr(checkpointing, name) for name in REPLACED] == replaced


def test_threads_of_a_bare_network_may_each_copy_it_to_float64() -> None:
    network, shown = Slow().train(), images(size=8)

    def map_in(precision: str) -> Tensor:
        model = Model(network, precision=precision)
        return explain(model, shown, ["grad_cam", "deep_lift"], CLASS_ONE)["grad_cam"].map

    kinds = ["float32", "float64", "float32", "float64"]
    alone = [map_in(kind) for kind in kinds]
    with untouched(network):
        together = in_threads([lambda kind=kind: map_in(kind) for kind in kinds])
    for expected, attribution_map in zip(alone, together, strict=True):
        assert torch.equal(expected, attribution_map)


class TestGuard:
    def test_two_threads_may_be_guarded_at_once(self) -> None:
        network, shown = Slow().eval(), images(size=8)
        barrier = threading.Barrier(2)

        def count() -> int:
            with guard(network) as record:
                barrier.wait(timeout=10)  # would break if one thread waited for the other
                network(shown)
                barrier.wait(timeout=10)
            return record.checkpointed

        replaced = [getattr(checkpointing, name) for name in REPLACED]
        assert in_threads([count, count]) == [1, 1]
        assert [getattr(checkpointing, name) for name in REPLACED] == replaced

    @pytest.mark.parametrize("reentrant", [False, True])
    def test_a_thread_without_a_guard_keeps_its_checkpoints(self, reentrant: bool) -> None:
        network, calls = Slow(reentrant).eval(), list[int]()
        network.conv2.register_forward_hook(lambda *_: calls.append(threading.get_ident()))

        def gradient() -> Tensor:
            leaf = images(size=8).requires_grad_(True)
            network(leaf).sum().backward()
            return leaf.grad

        expected = gradient()
        assert len(calls) == 2, "the segment runs once more during backward"
        calls.clear()
        with guard(network) as record:
            assert torch.equal(in_thread(gradient), expected)
            assert (len(calls), record.checkpointed) == (2, 0)
            gradient()
            assert (len(calls), record.checkpointed) == (3, 1)

    def test_the_innermost_guard_counts_and_errors_leave_nothing_behind(self) -> None:
        network, shown = Slow().eval(), images(size=8)
        replaced = [getattr(checkpointing, name) for name in REPLACED]
        with guard(network) as outer:
            inner = _fails_under_guard(network, shown)
            network(shown)
            network(shown)
        assert (outer.checkpointed, inner.checkpointed) == (2, 1)
        assert [getattr(checkpointing, name) for name in REPLACED] == replaced

    def test_compiled_code_is_eager_until_the_last_guard_is_left(self) -> None:
        compiled = torch.compile(Slow().eval(), backend="eager")  # from here on a stance is set
        eager = torch._dynamo.eval_frame
        inside, entered = threading.Event(), threading.Event()

        def hold() -> None:
            with guard(compiled):
                entered.set()
                inside.wait(timeout=10)

        thread = threading.Thread(target=hold)
        with guard(compiled):
            thread.start()
            entered.wait(timeout=10)
        assert eager._stance.stance == "force_eager"
        inside.set()
        thread.join()
        assert eager._stance.stance == "default"


def _fails_under_guard(network: nn.Module, shown: Tensor) -> GuardRecord:
    records: list[GuardRecord] = []
    with contextlib.suppress(ZeroDivisionError), guard(network) as record:
        records.append(record)
        network(shown)
        raise ZeroDivisionError
    return records[0]


class TestHooks:
    def test_taps_catch_and_change_what_their_own_thread_runs(self) -> None:
        network, shown = classifier(), images()
        plain = network(shown)
        with untouched(network):
            with tapping(network, (Tap("act1"),), {Tap("act1"): torch.zeros_like}) as tapped:
                assert torch.equal(in_thread(lambda: network(shown)), plain)
                changed = network(shown)
            assert tapped.calls(Tap("act1")) == 1
            assert not torch.equal(changed, plain)

    def test_forwards_of_other_threads_are_not_recorded(self) -> None:
        network, shown = Slow().eval(), images(size=8)
        expected_trace = trace(Model(network), shown)
        expected_calls = [call.path for call in follow_network(network, shown)]
        expected_layers = _layers(network, shown)
        done = threading.Event()

        def keep_running() -> None:
            with torch.no_grad():
                while not done.is_set():
                    network(shown)

        def record() -> list[Any]:
            try:
                return [
                    (
                        trace(Model(network), shown),
                        [call.path for call in follow_network(network, shown)],
                        _layers(network, shown),
                    )
                    for _ in range(5)
                ]
            finally:
                done.set()

        _, records = in_threads([keep_running, record])
        assert records == [(expected_trace, expected_calls, expected_layers)] * 5

    def test_a_copy_that_is_made_meanwhile_is_not_tapped(self) -> None:
        network, shown = classifier(), images()
        model = Model(network)
        with tapping(network, (Tap("act1"),), {Tap("act1"): torch.zeros_like}):
            double = model.in_double()
        assert not double.network.act1._forward_hooks
        torch.testing.assert_close(double(shown.double()).float(), network(shown))


def _layers(network: nn.Module, shown: Tensor) -> list[list[str]]:
    recorder, _, _ = recorded_calls(network, network, shown)
    return [calls.layers for calls in recorder.calls.values()]


def test_threads_may_evaluate_one_network() -> None:
    network, shown = Slow().train(), images(size=8)
    methods, metrics = ["saliency", "grad_cam"], ["deletion", "parameter_randomization"]

    def score() -> list[float]:
        model = Model(network)
        maps = explain(model, shown, methods, CLASS_ONE)
        scores = vx.evaluate(model, shown, maps, metrics, CLASS_ONE)
        return [row.value for row in scores.rows]

    alone = score()
    with untouched(network):
        assert in_threads([score] * 3) == [alone] * 3
