"""What autograd saves, kept in the memory of the CPU: the same maps, and less on the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from voxplain.attribution import explain
from voxplain.engine import spared_memory
from voxplain.engine.memory import BackwardBudget, BatchBudget, in_batches
from voxplain.engine.spared_memory import saved_on_cpu
from voxplain.errors import ConfigError
from voxplain.models.model import Model

METHODS: list[Any] = [
    "saliency",
    {"name": "integrated_gradients", "steps": 3},
    "grad_cam",
    "lrp",
    "deep_lift",
    "guided_backprop",
    {"name": "layer_conductance", "layers": ["2"], "steps": 3},
]
CLASS = {"kind": "class_score", "label": 1}
CPU = torch.device("cpu")


def segmenter(rank: int) -> nn.Module:
    torch.manual_seed(0)
    conv = nn.Conv3d if rank == 3 else nn.Conv2d
    layers = [conv(2, 8, 3, padding=1), nn.ReLU(), conv(8, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, conv(8, 3, 1)).eval()


def image(rank: int, side: int = 12) -> Tensor:
    torch.manual_seed(1)
    return torch.rand(1, 2, *(side,) * rank)


@pytest.mark.parametrize("window", [None, {"size": 8, "overlap": 0.5}])
@pytest.mark.parametrize("rank", [2, 3])
def test_maps_are_the_same(rank: int, window: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spared_memory, "_WORTH_MOVING", 0)
    network, shown = segmenter(rank), image(rank, 12 if rank == 2 else 10)
    plain = explain(Model(network, window=window), shown, METHODS, CLASS, memory=1)
    model = Model(network, window=window, offload="always")
    offloaded = explain(model, shown, METHODS, CLASS, memory=1)
    for key, found in offloaded.items():
        assert torch.equal(found.map, plain[key].map), key
        assert found.stats.streams[0]["offloaded"]
        assert any("kept in the memory of the CPU" in text for text in found.stats.warnings)
        assert "offloaded" not in plain[key].stats.streams[0]


def test_nothing_that_is_saved_stays_where_it_was() -> None:
    """Bytes of saved tensors that are alive between forward and backward."""
    network, shown = segmenter(3), image(3, 16).requires_grad_()
    held = {}
    for offloads in (False, True):
        stores: dict[int, tuple[StorageWeakRef, int]] = {}
        hooks = [
            layer.register_forward_hook(lambda *call, stores=stores: _note(stores, call[-1]))
            for layer in network
        ]
        budget = BatchBudget(1, CPU, "always" if offloads else "never")
        with budget.saving(1):
            output = network(shown)
        held[offloads] = sum(size for store, size in stores.values() if not store.expired())
        output.sum().backward()
        for hook in hooks:
            hook.remove()
    output_bytes = output.numel() * 4
    assert held[False] > 4 * output_bytes
    assert held[True] == output_bytes


def _note(stores: dict[int, tuple[StorageWeakRef, int]], value: Tensor) -> None:
    storage = value.untyped_storage()
    stores[len(stores)] = (StorageWeakRef(storage), storage.nbytes())


def test_parameters_and_small_tensors_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, shown = nn.Linear(64, 64), torch.rand(128, 64, requires_grad=True)
    copied: list[int] = []
    empty_like = torch.empty_like

    def counted(tensor: Tensor, **options: Any) -> Tensor:
        copied.append(tensor.numel())
        return empty_like(tensor, **options)

    monkeypatch.setattr(torch, "empty_like", counted)
    with saved_on_cpu(CPU):
        (layer(shown) * torch.rand(64)).sum()
    assert copied == [128 * 64]  # the input of the layer, and neither its weight nor the factors


def test_an_overwritten_tensor_keeps_the_value_that_was_saved() -> None:
    shown = torch.rand(100, 100, requires_grad=True)
    with saved_on_cpu(CPU):
        value = shown * 1
        score = (value * value).sum()
        value.detach().zero_()
    score.backward()
    torch.testing.assert_close(shown.grad, 2 * shown.detach())


class TestBudget:
    """As on a GPU, where ``auto`` may offload."""

    def budget(self, **options: Any) -> BackwardBudget:
        budget = BackwardBudget(CPU, offload="auto", **options)
        assert not budget.spared.may_offload
        budget.spared.may_offload = True
        return budget

    def test_it_comes_after_batches_of_one(self) -> None:
        budget, tried = self.budget(), []
        budget.size = 2

        def run(items: range) -> None:
            tried.append((len(items), budget.spared.offloads))
            if not budget.spared.offloads:
                raise torch.OutOfMemoryError("out of memory")

        in_batches(2, budget, run)
        assert tried == [(2, False), (1, False), (1, True), (1, True)]

    def test_what_does_not_even_fit_then_is_raised(self) -> None:
        def run(_: range) -> None:
            raise torch.OutOfMemoryError("out of memory")

        with pytest.raises(torch.OutOfMemoryError):
            in_batches(1, self.budget(), run)

    @pytest.mark.parametrize(("limit", "offloads"), [(1, True), (2**30, False)])
    def test_a_point_beyond_the_limit(self, limit: int, offloads: bool) -> None:
        budget = self.budget(limit=limit)
        with budget.saving(1):
            torch.rand(8, requires_grad=True).square()
        assert budget.spared.offloads == offloads

    def test_never_and_always(self) -> None:
        never, always = (BackwardBudget(CPU, offload=each) for each in ("never", "always"))
        assert (never.spared.offloads, always.spared.offloads) == (False, True)
        assert not BatchBudget(1, CPU, "never").halve()


@pytest.mark.parametrize("window", [None, {"size": 8, "overlap": 0.5}])
def test_a_network_that_runs_out_of_memory(window: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has too little memory as long as all that is saved lies on the device."""

    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = segmenter(2)

        def forward(self, images: Tensor) -> Tensor:
            if images.requires_grad and torch.is_grad_enabled() and not inside and too_large:
                raise torch.OutOfMemoryError("out of memory")
            return self.layers(images)

    network, shown = Large(), image(2)
    inside: list[bool] = []
    too_large: list[bool] = []
    methods = ["saliency", {"name": "integrated_gradients", "steps": 3}]
    plain = explain(Model(network, window=window), shown, methods, CLASS, memory=1)
    too_large.append(True)
    monkeypatch.setattr(spared_memory, "saved_on_cpu", _Told(inside, saved_on_cpu))
    monkeypatch.setattr("voxplain.engine.context.is_squashed", lambda _: False)
    with pytest.raises(torch.OutOfMemoryError):
        explain(Model(network, window=window), shown, methods, CLASS, memory=1)
    begin = BatchBudget.__init__

    def as_on_a_gpu(self: BatchBudget, *arguments: Any) -> None:
        begin(self, *arguments)
        self.spared.may_offload = True

    monkeypatch.setattr(BatchBudget, "__init__", as_on_a_gpu)
    found = explain(Model(network, window=window), shown, methods, CLASS, memory=1)
    for key, attribution in found.items():
        assert attribution.stats.streams[0]["offloaded"]
        assert torch.equal(attribution.map, plain[key].map)


class _Told:
    """Offloading blocks, of which others are told."""

    def __init__(self, inside: list[bool], block: Any) -> None:
        self._inside, self._block = inside, block

    def __call__(self, device: torch.device) -> _Told:
        self._opened = self._block(device)
        return self

    def __enter__(self) -> None:
        self._opened.__enter__()
        self._inside.append(True)

    def __exit__(self, *error: Any) -> Any:
        self._inside.pop()
        return self._opened.__exit__(*error)


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown offload 'allways'; did you mean always"):
        Model(nn.Identity(), offload="allways")  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("window", [None, {"size": 32, "overlap": 0.5}])
def test_on_cuda(window: Any) -> None:
    network, shown = segmenter(3).cuda(), image(3, 64).cuda()
    maps, peaks = {}, {}
    for offload in ("never", "always"):
        model = Model(network, window=window, offload=offload, precision="float32")
        torch.cuda.reset_peak_memory_stats()
        maps[offload] = explain(model, shown, METHODS, CLASS, memory=1)
        peaks[offload] = torch.cuda.max_memory_allocated()
    for key, found in maps["always"].items():
        torch.testing.assert_close(found.map, maps["never"][key].map, rtol=1e-4, atol=1e-6)
        assert found.map.device.type == "cuda"
    assert window or peaks["always"] < peaks["never"]
