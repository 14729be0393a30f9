"""Maps with recomputation equal those without to the last bit, and the network stays as it was."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from networks import images, segmenter, untouched
from threads import in_threads
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from voxplain.attribution import explain
from voxplain.attribution.result import Attribution
from voxplain.engine import memory
from voxplain.engine.memory import smaller_batches
from voxplain.errors import ConfigError
from voxplain.models.model import Model
from voxplain.zoo import unet

CLASS: dict[str, Any] = {"kind": "class_score", "label": 1}
CONTRAST: dict[str, Any] = {"kind": "contrast", "a": CLASS, "b": {**CLASS, "label": 0}}
METHODS: list[Any] = [
    "saliency",
    {"name": "integrated_gradients", "steps": 3},
    {"name": "smoothgrad", "samples": 3},
    {"name": "grad_cam", "layer": "dec1"},
    {"name": "grad_cam", "layer": "bottleneck.conv2"},
    {
        "name": "layer_gradient_x_activation",
        "layers": ["enc1.conv1", "enc1.relu1", "bottleneck.conv2"],
    },
    {"name": "layer_integrated_gradients", "layers": ["enc2.conv1"], "steps": 3},
    {"name": "layer_conductance", "layers": ["dec2"], "steps": 3},
]


def both(
    network: nn.Module, shown: Tensor, methods: Any, target: Any = CLASS, **options: Any
) -> tuple[dict[str, Attribution], dict[str, Attribution]]:
    """What is found without recomputation and with it, one point at a time."""
    found = []
    for offload in ("never", "recompute"):
        model = Model(network, offload=offload, **options)  # type: ignore[arg-type]
        found.append(explain(model, shown, methods, target, memory=1))
    return found[0], found[1]


def assert_equal(kept: dict[str, Attribution], again: dict[str, Attribution]) -> None:
    """Equal maps, of which the second ones are recorded as computed again."""
    assert kept.keys() == again.keys()
    for key, found in again.items():
        assert float(found.map.abs().max()) > 0, key
        assert torch.equal(found.map, kept[key].map), key
        assert all(stream["recomputed"] for stream in found.stats.streams), key
        assert any("ran again in the backward pass" in text for text in found.stats.warnings)
        assert "recomputed" not in kept[key].stats.streams[0]


class TestUNetWithSkips:
    @pytest.mark.parametrize("norm", ["batch", "instance"])
    @pytest.mark.parametrize("rank", [2, 3])
    def test_whole(self, rank: int, norm: Any) -> None:
        network = unet(rank, 2, 3, (4, 6, 8), norm=norm, pool="max").eval()
        with untouched(network):
            found = both(network, images(rank, 2, size=16), METHODS)
        assert_equal(*found)

    @pytest.mark.parametrize("rank", [2, 3])
    def test_in_windows(self, rank: int) -> None:
        network = unet(rank, 1, 3, (4, 6, 8), norm="instance").eval()
        window = {"size": 12, "overlap": 0.5}
        target = {**CLASS, "label": 1 if rank == 2 else 2}  # neither CAM is 0
        assert_equal(*both(network, images(rank, size=16), METHODS, target, window=window))

    def test_a_contrast_a_batch_and_double_precision(self) -> None:
        network = unet(3, 1, 3, (4, 6, 8), norm="instance").eval()
        shown = images(3, batch=1, size=16)
        assert_equal(*both(network, shown, METHODS[:4], CONTRAST))
        assert_equal(*both(network, shown, METHODS[:1], CONTRAST, precision="float64"))

    def test_in_bfloat16(self) -> None:
        method = {"name": "integrated_gradients", "steps": 3}
        network = Blocks(Block(), Block()).eval()
        kept, again = both(network, images(size=16), method, precision="bfloat16")
        assert again["integrated_gradients"].stats.streams[0]["precision"] == "bfloat16"
        assert_equal(kept, again)


def test_a_chain_of_layers_that_write_in_place() -> None:
    layers: list[nn.Module] = []
    for channels in (1, 8, 8, 8, 8):
        conv = nn.Conv3d(channels, 8, 3, padding=1)
        layers += [conv, nn.BatchNorm3d(8), nn.ReLU(inplace=True)]
    network = nn.Sequential(*layers, nn.Conv3d(8, 3, 1)).eval()
    methods = ["saliency", {"name": "layer_gradient_x_activation", "layers": ["6"]}]
    with untouched(network):
        assert_equal(*both(network, images(3, size=12), methods))


class Blocks(nn.Module):
    """A stem, blocks that follow one another, and a head; a block is what a test wants."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(1, 8, 3, padding=1), nn.ModuleList(blocks)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        features = self.stem(image)
        for block in self.blocks:
            features = block(features)
        return self.head(features)


RUNS: list[str] = []
"""The kinds of the blocks that ran with gradients."""


class Block(nn.Module):
    """Three convolutions and something between them."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))

    def between(self, features: Tensor) -> Tensor:
        return features

    def forward(self, features: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            RUNS.append(type(self).__name__)
        for conv in self.convs:
            features = self.between(functional.silu(conv(features)))
        return features


class Dropped(Block):
    def between(self, features: Tensor) -> Tensor:
        return functional.dropout(features, 0.3, training=True)


class DroppedElsewhere(Block):
    """Its numbers come from NumPy and Python."""

    def between(self, features: Tensor) -> Tensor:
        return features * (np.random.rand() + random.random())


class Checkpointed(Block):
    def between(self, features: Tensor) -> Tensor:
        return checkpoint(torch.tanh, features, use_reentrant=False)


class Written(Block):
    """It writes into what it is given."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.mul_(1.5))


class Counting(Block):
    """Another function in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def between(self, features: Tensor) -> Tensor:
        self.calls += 1
        return features * (1 + self.calls % 3)


class OwnGenerator(Block):
    """Numbers that no seed of torch fixes."""

    def __init__(self) -> None:
        super().__init__()
        self.source = torch.Generator().manual_seed(0)

    def between(self, features: Tensor) -> Tensor:
        return features + torch.rand(features.shape, generator=self.source)


class Residual(nn.Module):
    """Plain autograd allows it to add to its input, since SiLU does not need what it returned."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Body()

    def forward(self, features: Tensor) -> Tensor:
        features = features * 1
        features += self.body(features)
        return features


class Body(Block):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features + 1)


class TestNetworksThatAreDifficult:
    @pytest.mark.parametrize("kind", [Block, Dropped, DroppedElsewhere, Checkpointed])
    def test_what_is_computed_again_is_the_same(self, kind: type[Block]) -> None:
        network = Blocks(kind(), kind(), kind()).eval()
        with untouched(network):
            found = both(network, images(size=16), METHODS[:3])
        assert_equal(*found)

    def test_a_network_that_writes_into_its_input(self) -> None:
        class WritesFirst(Blocks):
            def forward(self, image: Tensor) -> Tensor:
                return super().forward(image.mul_(2))

        assert_equal(*both(WritesFirst(Block(), Block()).eval(), images(size=16), METHODS[:2]))

    @pytest.mark.parametrize("odd", [Written, Residual])
    def test_a_block_whose_input_is_overwritten_is_kept(self, odd: type[nn.Module]) -> None:
        network = Blocks(Block(), odd(), Block(), Block()).eval()
        kept, again = both(network, images(size=16), METHODS[:2])
        assert_equal(kept, again)

    @pytest.mark.parametrize("odd", [Counting, OwnGenerator])
    def test_a_block_that_gives_something_else_again_is_kept(self, odd: type[nn.Module]) -> None:
        network = Blocks(Block(), odd(), Block(), Block()).eval()
        model = Model(network, offload="recompute")
        explain(model, images(size=16), "saliency", CLASS)
        del RUNS[:]
        found = explain(model, images(size=16), "saliency", CLASS)["saliency"]
        assert found.stats.streams[0]["recomputed"]
        runs = Counter(RUNS)
        assert runs["Block"] - 3 * runs[odd.__name__] == 3  # each of three ran once more

    def test_a_hook_of_the_user_runs_once_per_forward(self) -> None:
        network = Blocks(Block(), Block(), Block()).eval()
        seen: list[bool] = []
        handle = (
            network.blocks[1]
            .convs[1]
            .register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
        )
        explain(Model(network, offload="never"), images(size=16), "saliency", CLASS)
        expected = sum(seen)
        del seen[:]
        kept, again = both(network, images(size=16), "saliency")
        handle.remove()
        assert_equal(kept, again)
        assert sum(seen) == 2 * expected + 1  # both, and the forward in which saved bytes count


class TestRules:
    METHODS = ("guided_backprop", "lrp", "deep_lift", "excitation_backprop")

    @pytest.mark.parametrize("method", METHODS)
    def test_maps_are_the_same_and_say_that_nothing_ran_again(self, method: str) -> None:
        network = segmenter(3)
        kept, again = both(network, images(3, size=8), method)
        for key, found in again.items():
            assert torch.equal(found.map, kept[key].map)
            assert "recomputed" not in found.stats.streams[0]
            text = "nothing was computed again in the backward pass: the rule "
            assert any(remark.startswith(text) for remark in found.stats.warnings)


class TestWhereAnImageDoesNotFit:
    """The choice ``auto``."""

    def test_it_is_tried_after_memory_ran_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        network, shown = Blocks(Block(), Block()).eval(), images(size=16)
        kept = explain(Model(network, offload="never"), shown, "saliency", CLASS)["saliency"]
        usual = Blocks.forward

        def forward(self: Blocks, image: Tensor) -> Tensor:
            counts = self.blocks[0]._forward_pre_hooks
            if image.requires_grad and not counts and "forward" not in vars(self.blocks[0]):
                raise torch.OutOfMemoryError("out of memory")
            return usual(self, image)

        monkeypatch.setattr(Blocks, "forward", forward)
        with pytest.raises(torch.OutOfMemoryError):
            explain(Model(network, offload="never"), shown, "saliency", CLASS)
        found = explain(Model(network), shown, "saliency", CLASS)["saliency"]
        assert found.stats.streams[0]["recomputed"]
        assert torch.equal(found.map, kept.map)

    def test_before_the_first_pass_where_the_computer_has_too_little(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        network, shown = Blocks(Block(), Block()).eval(), images(size=16)
        assert not _recomputed(network, shown)
        free = type("Memory", (), {"available": 100_000})
        monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: free)
        assert _recomputed(network, shown)
        assert not _recomputed(network, shown, offload="never")

    def test_in_the_second_attempt_of_a_task_that_was_killed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        network, shown = Blocks(Block(), Block()).eval(), images(size=16)
        monkeypatch.setattr(memory, "_BACKWARD_BYTES", 100_000)
        assert not _recomputed(network, shown)
        with smaller_batches(2):
            assert _recomputed(network, shown)

    def test_beyond_the_limit_of_the_call(self) -> None:
        network, shown = Blocks(Block(), Block()).eval(), images(size=16)
        assert _recomputed(network, shown, limit=100_000)
        assert not _recomputed(network, shown, limit=10**9)


def _recomputed(
    network: nn.Module, shown: Tensor, limit: int | None = None, offload: Any = "auto"
) -> bool:
    model = Model(network, offload=offload)
    found = explain(model, shown, "saliency", CLASS, memory=limit)["saliency"]
    return bool(found.stats.streams[0].get("recomputed", False))


def test_a_network_of_which_nothing_is_spared_says_so() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1)).eval()
    kept, again = both(network, images(size=8), "saliency")
    assert torch.equal(kept["saliency"].map, again["saliency"].map)
    assert any("no part of the network" in text for text in again["saliency"].stats.warnings)


def test_threads_recompute_one_network_and_leave_it_as_it_was() -> None:
    network, shown = unet(2, 1, 3, (4, 6, 8), norm="batch").eval(), images(size=16)
    kept, _ = both(network, shown, METHODS[:3])

    def work(offload: Any, method: Any) -> Any:
        return explain(Model(network, offload=offload), shown, method, CLASS, memory=1)

    works = [
        lambda offload=offload, method=method: work(offload, method)
        for offload in ("recompute", "never", "recompute")
        for method in METHODS[:3]
    ]
    with untouched(network):
        for found in in_threads(works):
            for key, attribution in found.items():
                assert torch.equal(attribution.map, kept[key].map)


def test_an_error_leaves_the_network_as_it_was() -> None:
    class Failing(Block):
        fails = False

        def between(self, features: Tensor) -> Tensor:
            if self.fails and torch.is_grad_enabled():
                raise ValueError("something in the network")
            return features

    network, shown = Blocks(Block(), Failing(), Block()).eval(), images(size=16)
    model = Model(network, offload="recompute")
    explain(model, shown, "saliency", CLASS)
    Failing.fails = True
    with untouched(network), pytest.raises(Exception, match="something in the network"):
        explain(model, shown, "saliency", CLASS)


def test_an_unknown_choice_names_it() -> None:
    with pytest.raises(ConfigError, match="did you mean recompute"):
        Model(nn.Identity(), offload="recomputed")  # type: ignore[arg-type]
