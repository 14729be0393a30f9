"""Foreign errors out of backward passes: one sentence that names the methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from voxplain import audit, explain
from voxplain.errors import ModelError, TargetError, VoxplainError
from voxplain.models.failures import GradientError
from voxplain.models.model import Model


class RaisingBackward(torch.autograd.Function):
    """Twice its input; its backward raises."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values * 2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise ZeroDivisionError("read /home/jane/table.npy")


class WrongShape(RaisingBackward):
    """Twice its input; its backward gives a gradient of another shape."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return torch.zeros(3)


class WithoutBackward(torch.autograd.Function):
    """Twice its input, without a backward."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values * 2


class WithoutGradient(torch.autograd.Function):
    """Twice its input; its output is marked as not differentiable."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        doubled = values * 2
        ctx.mark_non_differentiable(doubled)
        return doubled


def raising_hook(error: BaseException) -> Callable[[Tensor], Tensor]:
    """A function whose values have a hook that raises in the backward pass."""

    def hook(gradient: Tensor) -> Tensor:
        raise error

    def function(values: Tensor) -> Tensor:
        values = values * 2
        if values.requires_grad:
            values.register_hook(hook)
        return values

    return function


def used_graph(values: Tensor) -> Tensor:
    """A function that takes gradients itself and frees its graph."""
    result = values.exp()
    if result.requires_grad:
        result.sum().backward()
    return result


def overwritten(values: Tensor) -> Tensor:
    result = values.exp()
    result += 1
    return result


def by_numpy(values: Tensor) -> Tensor:
    return torch.from_numpy(values.numpy() * 2)


FAILING = {
    "its backward raises": (RaisingBackward.apply, r"ZeroDivisionError: read …\)"),
    "its backward gives another shape": (WrongShape.apply, "invalid gradient"),
    "it has no backward": (WithoutBackward.apply, "cannot be differentiated: You must implement"),
    "a hook raises": (raising_hook(KeyError("lesion")), "KeyError: 'lesion'"),
    "it frees its graph": (used_graph, "second time"),
    "it overwrites a value": (overwritten, "overwrites in place a value"),
    "it computes in NumPy": (by_numpy, r"Can't call numpy\(\)"),
}
"""Functions that run, but not backwards; with words of the sentence about it."""


class Network(nn.Module):
    """A convolution, a function, and the mean over positions by class."""

    def __init__(self, function: Callable[[Tensor], Tensor], rank: int = 2) -> None:
        super().__init__()
        torch.manual_seed(4)
        convolution = nn.Conv2d if rank == 2 else nn.Conv3d
        self.convolution = convolution(1, 2, 3, padding=1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.convolution(x)).flatten(2).mean(2)


class Segmenter(Network):
    """The same with an output at every voxel."""

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.convolution(x)).clone()


def images(rank: int = 2) -> Tensor:
    return torch.rand((2, 1, *(6, 7, 5)[:rank]), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("case", FAILING)
@pytest.mark.parametrize(
    "method", ["saliency", "integrated_gradients", "grad_cam", "guided_integrated_gradients"]
)
def test_a_backward_pass_that_fails_is_one_sentence(case: str, method: str) -> None:
    function, words = FAILING[case]
    layers = {"layer": "convolution"} if method == "grad_cam" else {}
    with pytest.raises(ModelError, match=words) as caught:
        explain(Network(function), images(), {"name": method, **layers}, 1)
    text = str(caught.value)
    assert text.startswith(f"{method} needs gradients, and the ")
    assert "occlusion" in text
    assert "\n" not in text
    assert "jane" not in text
    assert not isinstance(caught.value.__cause__, (VoxplainError, type(None)))


@pytest.mark.parametrize("case", FAILING)
def test_masked_methods_need_no_backward_pass(case: str) -> None:
    function, _ = FAILING[case]
    maps = explain(Network(function), images(), {"name": "occlusion", "window": 3}, 1)
    assert float(maps["occlusion"].map.abs().max()) > 0


@pytest.mark.parametrize("case", FAILING)
@pytest.mark.parametrize("kind", [Network, Segmenter])
def test_volumes_and_windows(case: str, kind: type[Network]) -> None:
    function, words = FAILING[case]
    network = kind(function, 3)
    model = Model(network, window={"size": 4}) if kind is Segmenter else network
    target = 1 if kind is Network else {"kind": "class_score", "label": 1}
    with pytest.raises(ModelError, match=words):
        explain(model, images(3), "saliency", target)


def test_all_methods_of_a_stream_are_named() -> None:
    with pytest.raises(ModelError, match=r"^saliency and input_x_gradient need gradients"):
        explain(Network(RaisingBackward.apply), images(), ["saliency", "input_x_gradient"], 1)


def test_under_a_rule_that_replaces_other_functions() -> None:
    network = Network(raising_hook(KeyError("lesion")))
    for method in ("lrp", "deep_lift", "guided_backprop", "excitation_backprop"):
        with pytest.raises(ModelError, match=f"^{method} needs gradients, .*KeyError"):
            explain(network, images(), method, 1)


def test_an_output_without_gradient_says_what_works() -> None:
    with pytest.raises(TargetError, match="differentiable operations; methods that mask"):
        explain(Network(WithoutGradient.apply), images(), "saliency", 1)


def test_a_call_that_fails_late() -> None:
    """The first calls of the network find out how it behaves."""
    calls = [0]

    def late(values: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] > 5:
            raise OSError("cannot read /home/jane/table.npy")
        return values

    with pytest.raises(ModelError, match=r"fails on inputs of shape .*OSError: cannot read …"):
        explain(Network(late), images(), "rise", 1)
    calls[0] = 0
    with pytest.raises(ModelError, match=r"^integrated_gradients needs .*OSError: cannot read …"):
        explain(Network(late), images(), {"name": "integrated_gradients", "steps": 256}, 1)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        TimeoutError("the time limit is over"),
        KeyboardInterrupt(),
    ],
)
def test_what_callers_handle_passes_a_backward_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        explain(Network(raising_hook(error)), images()[:1], "saliency", 1)
    assert caught.value is error


@pytest.mark.parametrize("kind", [MemoryError, torch.OutOfMemoryError])
def test_memory_that_runs_out_in_a_backward_pass_halves_the_batch(
    kind: type[Exception],
) -> None:
    sizes = []

    def limited(values: Tensor) -> Tensor:
        def hook(gradient: Tensor) -> Tensor:
            sizes.append(len(gradient))
            if len(gradient) > 2:
                raise kind("out of memory")
            return gradient

        values = values * 2
        if values.requires_grad:
            values.register_hook(hook)
        return values

    method = {"name": "integrated_gradients", "steps": 16}
    found = explain(Network(limited), images(), method, 1)["integrated_gradients"].map
    assert max(sizes) > 2
    whole = explain(Network(lambda values: values * 2), images(), method, 1)
    torch.testing.assert_close(found, whole["integrated_gradients"].map)


def test_masks_in_a_half_precision_need_no_gradient() -> None:
    model = Model(Network(RaisingBackward.apply), precision="bfloat16")
    found = explain(model, images()[:1], {"name": "occlusion", "window": 3}, 1)
    assert found["occlusion"].stats.streams[0]["agreement"] > 0.99
    assert found["occlusion"][0].sidecar.model.precision == "bfloat16"
    with pytest.raises(ModelError, match="saliency needs gradients"):
        explain(model, images()[:1], "saliency", 1)


def test_an_audit_goes_on_without_a_gradient() -> None:
    found = audit(Network(raising_hook(KeyError("lesion"))), images())
    assert found.failures["lrp"] == (
        "the gradient of the network cannot be taken (KeyError: 'lesion')"
    )
    with pytest.raises(GradientError, match="numpy"):
        audit(Network(by_numpy), images())
