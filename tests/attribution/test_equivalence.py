"""Equal maps by two ways: streams shared or alone, batches or single images, any size of chunk."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from every_method import EXACT, NAMES, TASKS, all_maps, key_of, one_map, setting, short
from networks import assert_close, classifier, images, one_slice, untouched

from voxplain.attribution import estimate, explain, group
from voxplain.engine.method import parse_method
from voxplain.engine.passes.points import PassResult, Points
from voxplain.engine.passes.whole import WholePasses

every_task = pytest.mark.parametrize(("task", "rank"), list(zip(TASKS, (2, 3), strict=True)))


@every_task
def test_all_in_one_call_equal_each_alone(task: str, rank: int) -> None:
    network, inputs, references, target = setting(task, rank)
    together = all_maps(network, inputs, references, target)
    for name in NAMES:
        alone = one_map(network, inputs, references, name, target)
        assert_close(together[name].map, alone.map, EXACT, name)
        assert together[name].stats.scores == alone.stats.scores
        if alone.stats.completeness:
            assert together[name].stats.completeness == pytest.approx(
                alone.stats.completeness, abs=1e-9
            )


@every_task
def test_the_order_of_methods_does_not_matter(task: str, rank: int) -> None:
    network, inputs, references, target = setting(task, rank)
    together = all_maps(network, inputs, references, target)
    shuffled = [short(name) for name in NAMES]
    random.Random(3).shuffle(shuffled)
    attributions = explain(network, inputs, shuffled, target, references=references)
    for name in NAMES:
        assert torch.equal(attributions[key_of(name)].map, together[name].map), name


@every_task
def test_a_batch_of_four_is_four_batches_of_one(task: str, rank: int) -> None:
    network, inputs, references, target = setting(task, rank, 4)
    together = all_maps(network, inputs, references, target)
    for row in range(4):
        alone = all_maps(network, inputs[row : row + 1], references, target)
        for name in NAMES:
            assert_close(together[name].map[row], alone[name].map[0], EXACT, name)
            assert together[name][row].stats.scores == pytest.approx(alone[name].stats.scores)


@every_task
def test_chunks_do_not_matter(task: str, rank: int) -> None:
    network, inputs, references, target = setting(task, rank)
    small = all_maps(network, inputs, references, target, memory=1)
    large = all_maps(network, inputs, references, target, memory=10**9)
    for name in NAMES:
        assert_close(small[name].map, large[name].map, EXACT, name)


@every_task
def test_running_out_of_memory_halves_the_batch(
    task: str, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, inputs, references, target = setting(task, rank)
    whole = all_maps(network, inputs, references, target)
    run, refused, taken = WholePasses._run, [], []

    def tight(self: WholePasses, points: Points) -> PassResult:
        if len(points.inputs) > 2:
            refused.append(len(points.inputs))
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        taken.append(len(points.inputs))
        return run(self, points)

    monkeypatch.setattr(WholePasses, "_run", tight)
    halved = all_maps(network, inputs, references, target)
    assert refused
    assert max(taken) == 2
    for name in NAMES:
        assert_close(halved[name].map, whole[name].map, EXACT, name)


def test_out_of_memory_with_one_point_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(WholePasses, "_run", full)
    network = classifier()
    with untouched(network), pytest.raises(RuntimeError, match="out of memory"):
        explain(network, images(), "saliency", 1)


def test_other_errors_are_not_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def broken(*_: Any) -> None:
        calls.append(1)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(WholePasses, "_run", broken)
    network = classifier()
    with untouched(network), pytest.raises(RuntimeError, match="cannot be multiplied"):
        explain(network, images(), {"name": "integrated_gradients", "steps": 4}, 1)
    assert len(calls) == 1


@pytest.mark.parametrize("task", TASKS)
def test_one_slice_of_a_volume_is_the_image(task: str) -> None:
    network, inputs, references, target = setting(task, 2)
    flat = all_maps(network, inputs, references, target)
    volume = all_maps(one_slice(network), inputs[:, :, None], references[:, :, None], target)
    for name in NAMES:
        assert_close(volume[name].map, flat[name].map[:, :, None], EXACT, name)


def test_sharing_costs_each_stream_once() -> None:
    network, batch, _, target = setting("classifier", 2)
    calls = []
    network.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    specs = ["saliency", "input_x_gradient", "grad_cam", "layer_cam", "linear_approximation"]
    explain(network, batch, "saliency", target)  # the first time, some calls tell how it behaves
    calls.clear()
    explain(network, batch, specs, target)
    together = sum(calls)
    calls.clear()
    explain(network, batch, specs[2:3], target)
    assert together == sum(calls)
    chosen = [parse_method(one) for one in [*specs, {"name": "integrated_gradients", "steps": 9}]]
    plan = estimate(chosen, batch, network)
    assert [stream.passes for stream in plan] == [1, 9]
    assert plan[0].methods == tuple(specs)
    assert [len(part) for part in group(chosen, batch, network)] == [5, 1]
    noisy = [
        parse_method({"name": "smoothgrad", "of": of, "samples": 4, "power": power})
        for of in ("saliency", "input_x_gradient", "guided_backprop")
        for power in (1, 2)
    ]
    assert [stream.passes for stream in estimate(noisy, batch, network)] == [4, 4]


def test_progress_ends_where_it_planned() -> None:
    network, inputs, references, target = setting("classifier", 2)
    seen: list[tuple[int, int]] = []
    all_maps(network, inputs, references, target, progress=lambda *now: seen.append(now))
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len({planned for _, planned in seen}) == 1
