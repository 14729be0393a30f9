"""A lower precision runs only where a few passes of the stream agree with float32."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import voxplain as vx
from voxplain.attribution import Attribution, explain
from voxplain.engine.execution.trial import is_refused, least_agreement, of_scores, spread
from voxplain.engine.passes import base
from voxplain.engine.passes.whole import WholePasses
from voxplain.errors import VoxplainWarning
from voxplain.models.model import Model
from voxplain.models.precision import TF32, agreement

METHODS: list[Any] = [
    "saliency",
    {"name": "integrated_gradients", "steps": 4},
    "grad_cam",
    "guided_backprop",
    "deep_lift",
    "lrp",
    "excitation_backprop",
    {"name": "occlusion", "window": 6, "stride": 4},
]
FAMILIES = {
    "saliency": "gradients",
    "integrated_gradients": "gradients",
    "grad_cam": "gradients",
    "guided_backprop": "guided",
    "deep_lift": "deep_lift",
    "lrp": "lrp",
    "excitation_backprop": "excitation",
    "occlusion": "masks",
}
CLASS = {"kind": "class_score", "label": 1}


def segmenter(rank: int = 2) -> nn.Module:
    """Two channels, three classes; half precision agrees for it."""
    torch.manual_seed(0)
    conv = nn.Conv3d if rank == 3 else nn.Conv2d
    layers = [conv(2, 8, 3, padding=1), nn.ReLU(), conv(8, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, conv(8, 3, 1)).eval()


def image(rank: int = 2, side: int = 12) -> Tensor:
    torch.manual_seed(1)
    return torch.rand(1, 2, *(side,) * rank)


class Offset(nn.Module):
    """A linear score beside a constant: bfloat16 has 8 bits for both together."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset, self.linear = offset, nn.Linear(2 * 12 * 12, 3, bias=False)
        torch.manual_seed(0)
        nn.init.normal_(self.linear.weight)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images.flatten(1)) + self.offset


def ran(attribution: Attribution) -> tuple[str, float | None]:
    """The precision of a map and its agreement, as its sidecar states them."""
    facts = attribution[0].sidecar.stream[0]
    assert attribution[0].sidecar.model.precision == facts["precision"]
    return facts["precision"], facts.get("agreement")


def said(attribution: Attribution) -> list[str]:
    return [text for text in attribution.stats.warnings if "was computed in" in text]


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
@pytest.mark.parametrize("window", [None, {"size": 8, "overlap": 0.5}])
@pytest.mark.parametrize("rank", [2, 3])
def test_families_that_agree_run_low(rank: int, window: Any, kind: Any) -> None:
    network, shown = segmenter(rank), image(rank, 12 if rank == 2 else 9)
    few = [METHODS[0], METHODS[2], METHODS[5], METHODS[7]]
    methods = few if window or rank == 3 else METHODS
    low = explain(Model(network, precision=kind, window=window), shown, methods, CLASS)
    full = explain(Model(network, window=window), shown, methods, CLASS)
    for key, attribution in low.items():
        precision, found = ran(attribution)
        assert precision == kind, key
        assert found is not None
        assert found >= 0.99
        assert attribution.stats.streams[0]["family"] == FAMILIES[key]
        assert agreement(attribution.map, full[key].map) > 0.99, key
        assert attribution.map.dtype == torch.float32
        assert ran(full[key]) == ("float32", None)


@pytest.mark.parametrize("rank", [2, 3])
def test_an_untrained_instance_norm_runs_in_float32(rank: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv3d if rank == 3 else nn.Conv2d
    norm = nn.InstanceNorm3d if rank == 3 else nn.InstanceNorm2d
    layers = [each for n in (2, 8) for each in (conv(n, 8, 3), norm(8), nn.ReLU())]
    network = nn.Sequential(*layers, conv(8, 3, 1)).eval()
    shown = 0.5 + 0.01 * image(rank, 10)
    methods = ["saliency", "grad_cam", "lrp", METHODS[-1]]
    low = explain(Model(network, precision="bfloat16"), shown, methods, 1)
    full = explain(network, shown, methods, 1)
    for key, attribution in low.items():
        precision, found = ran(attribution)
        assert precision == "float32", key
        assert found is not None
        assert found < 0.99
        assert torch.equal(attribution.map, full[key].map)
        (text,) = said(attribution)
        assert text == (
            f"bfloat16 agrees with float32 by {found:.3g}, where 0.99 is needed, so this map was "
            "computed in float32"
        )


def test_a_tapped_layer_has_to_agree_as_well() -> None:
    """The input gradient is that of the skip; the layer holds a difference of large numbers."""

    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Conv2d(2, 4, 3, padding=1)

        def forward(self, images: Tensor) -> Tensor:
            found = self.layer(images)
            small = torch.sin(50 * ((found + 3000) - 3000)) + found
            return torch.stack([small.sum((1, 2, 3)), 1e4 * images.sum((1, 2, 3))], 1).cumsum(1)

    methods = ["saliency", {"name": "layer_gradient_x_activation", "layers": ["layer"]}]
    alone = explain(Model(Skip(), precision="bfloat16"), image(), methods[:1], 1)
    assert ran(alone["saliency"])[0] == "bfloat16"
    both = explain(Model(Skip(), precision="bfloat16"), image(), methods, 1)
    assert [ran(each)[0] for each in both.values()] == ["float32", "float32"]


def test_small_falls_of_a_large_score_are_noticed() -> None:
    method = {"name": "occlusion", "window": 4, "stride": 4}
    for offset, precision in ((0.0, "bfloat16"), (1000.0, "float32")):
        network = Offset(offset)
        found = explain(Model(network, precision="bfloat16"), image(), method, 1)["occlusion"]
        assert ran(found)[0] == precision
        exact = explain(network, image(), method, 1)["occlusion"].map
        assert agreement(found.map, exact) > 0.99
        assert torch.equal(found.map, exact) == (precision == "float32")


def test_falls_that_are_about_as_large_have_to_differ_in_the_same_way() -> None:
    falls = torch.tensor([0.50, 0.52, 0.49, 0.51])
    exact = of_scores(1.0, (1 - falls).tolist())
    same = of_scores(1.0, (1 - falls - 1e-4).tolist())
    other = of_scores(1.0, (1 - falls.flip(0)).tolist())
    shifted = of_scores(1.1, (1 - falls).tolist())
    assert not is_refused(least_agreement(same, exact))
    assert is_refused(least_agreement(other, exact))
    assert is_refused(least_agreement(shifted, exact))
    assert is_refused(least_agreement(exact, of_scores(0.0, [0.0, 0.0])))  # nothing to compare
    assert is_refused(least_agreement([torch.tensor([float("nan")])], [torch.ones(1)]))


def test_masks_that_are_tried_lie_all_over_the_image() -> None:
    assert spread(range(5)) == [0, 1, 2, 3, 4]
    chosen = spread(range(1000))
    assert len(chosen) == 12
    gaps = [b - a for a, b in itertools.pairwise(chosen)]
    assert max(gaps) < 200
    assert len({number % 12 for number in chosen}) > 5  # where rows have twelve


def test_a_network_that_does_not_run_low_runs_in_float32() -> None:
    class Strict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(2, 3, 3)

        def forward(self, images: Tensor) -> Tensor:
            found = self.layer(images)
            if found.dtype is not torch.float32:
                raise TypeError("float32 is needed")
            return found.mean((2, 3))

    model = Model(Strict(), precision="bfloat16")
    for key, found in explain(model, image(), ["saliency", METHODS[-1]], 1).items():
        assert ran(found)[0] == "float32", key
        assert "does not run in bfloat16 (TypeError: float32 is needed)" in said(found)[0]


class TestFloat16:
    """Gradients of float16 are taken times a power of two, which is divided out."""

    def scaled(self, factor: float) -> tuple[Attribution, Tensor]:
        class Scaled(nn.Sequential):
            def forward(self, images: Tensor) -> Tensor:
                return super().forward(images).float() * factor

        torch.manual_seed(0)
        network = Scaled(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()
        model = Model(network, precision="float16")
        found = explain(model, image(), "saliency", CLASS)["saliency"]
        return found, explain(network, image(), "saliency", CLASS)["saliency"].map

    @pytest.mark.parametrize("factor", [1e-8, 1.0, 1e5])
    def test_small_and_large_gradients(self, factor: float) -> None:
        found, exact = self.scaled(factor)
        assert ran(found)[0] == "float16"
        assert agreement(found.map, exact) > 0.999

    def test_without_it_small_gradients_are_zero(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(base, "_FIRST_SCALE", 1.0)
        found, exact = self.scaled(1e-8)
        assert ran(found)[0] == "float32"
        assert torch.equal(found.map, exact)

    @pytest.mark.parametrize("window", [None, {"size": 8, "overlap": 0.5}])
    def test_conserved_relevance_keeps_its_books(self, window: Any) -> None:
        model = Model(segmenter(), precision="float16", window=window)
        found = explain(model, image(), "lrp", CLASS)["lrp"]
        assert ran(found)[0] == "float16"
        books = found.stats.streams[0]["conservation"]
        parts = [books[name] for name in ("map", "bias", "epsilon", "link", "padding")]
        assert sum(parts) == pytest.approx(books["score"], rel=1e-2)

    def test_what_was_booked_before_an_overflow_does_not_count(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def books() -> dict[str, float]:
            found = explain(Model(segmenter(), precision="float16"), image(), "lrp", CLASS)
            return found["lrp"].stats.streams[0]["conservation"]

        run, calls, expected = WholePasses._run, [], books()

        def overflowing(self: WholePasses, points: Any) -> Any:
            result = run(self, points)
            if self._scale is None:
                return result
            calls.append(self._scale)
            if len(calls) % 2:
                raise base._OverflowError
            return result

        monkeypatch.setattr(WholePasses, "_run", overflowing)
        assert books() == pytest.approx(expected, abs=0.01)
        assert len(calls) > 1


class TestTf32:
    def test_a_cpu_has_none(self) -> None:
        found = explain(Model(segmenter(), precision="tf32"), image(), METHODS[:1], CLASS)
        assert ran(found["saliency"]) == ("float32", None)
        words = "there is no tf32 on cpu, so this map was computed in float32"
        assert said(found["saliency"]) == [words]

    def test_flags_are_restored(self) -> None:
        before = self.flags()
        with TF32.set_to(True):
            assert self.flags() == (True, True)
            with TF32.set_to(False):  # the outer block decides
                assert self.flags() == (True, True)
        with TF32.set_to(False):
            assert self.flags() == (False, False)
        with pytest.raises(ZeroDivisionError), TF32.set_to(True):
            raise ZeroDivisionError
        assert self.flags() == before

    def test_a_thread_that_wants_it_otherwise_waits(self) -> None:
        before, seen = self.flags(), []

        def other() -> None:
            with TF32.set_to(False):
                seen.append(self.flags())

        with TF32.set_to(True):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join(0.05)
            assert thread.is_alive()
            assert self.flags() == (True, True)
        thread.join(10)
        assert seen == [(False, False)]
        assert self.flags() == before

    def test_newer_flags_are_restored_as_well(self) -> None:
        matmul: Any = torch.backends.cuda.matmul
        if not hasattr(matmul, "fp32_precision"):
            pytest.skip("this torch has the older flags alone")
        before = matmul.fp32_precision
        with TF32.set_to(True):
            assert matmul.fp32_precision == "tf32"
        assert matmul.fp32_precision == before

    def flags(self) -> tuple[bool, bool]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


class TestAuto:
    def test_it_is_float32_on_a_cpu(self) -> None:
        for found in explain(segmenter(), image(), METHODS, CLASS).values():
            assert ran(found) == ("float32", None)

    def test_few_passes_are_not_worth_a_trial(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As on a GPU, where it is bfloat16."""
        monkeypatch.setattr(Model, "resolved_precision", "bfloat16")
        methods = ["saliency", {"name": "integrated_gradients", "steps": 16}]
        found = explain(segmenter(), image(), methods, CLASS)
        assert ran(found["saliency"]) == ("float32", None)
        assert said(found["saliency"]) == []
        assert ran(found["integrated_gradients"])[0] == "bfloat16"


@pytest.mark.parametrize("name", ["saliency", "occlusion", "smoothgrad"])
def test_every_image_of_three_has_to_agree(name: str) -> None:
    """bfloat16 does not tell 1000 from 1001, and so has no sine of the third image."""

    class Sine(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            found = functional.conv2d(images, images.new_ones(3, 1, 1, 1))
            return torch.sin(found).sum((2, 3))

    batch = torch.rand(3, 1, 8, 8) + torch.tensor([0.0, 0.0, 1000.0]).view(3, 1, 1, 1)
    method = {
        "saliency": "saliency",
        "occlusion": {"name": "occlusion", "window": 4, "stride": 4},
        "smoothgrad": {"name": "smoothgrad", "of": "saliency", "samples": 2, "sigma": 0.01},
    }[name]
    model = Model(Sine(), precision="bfloat16")
    assert [ran(each)[0] for each in explain(model, batch[:2], method, 1).values()] == ["bfloat16"]
    assert [ran(each)[0] for each in explain(model, batch, method, 1).values()] == ["float32"]


def test_points_that_depend_on_gradients_run_in_float32() -> None:
    model = Model(segmenter(), precision="bfloat16")
    method = {"name": "guided_integrated_gradients", "steps": 4}
    (found,) = explain(model, image(), method, CLASS).values()
    assert ran(found) == ("float32", None)
    assert said(found) == [
        "what is computed next depends on gradients, which bfloat16 rounds, so this map was "
        "computed in float32"
    ]


def test_float64_networks_stay_in_float64() -> None:
    network, shown = segmenter().double(), image()
    low = explain(Model(network, precision="bfloat16"), shown, "saliency", CLASS)["saliency"]
    assert ran(low) == ("float64", None)
    assert torch.equal(low.map, explain(network, shown, "saliency", CLASS)["saliency"].map)


class TestMetrics:
    """Changed images that metrics score are compared in the same way."""

    def scores(self, network: nn.Module, precision: Any) -> list[float | None]:
        model = Model(network, precision=precision)
        maps = explain(network, image(), "saliency", 1)
        found = vx.evaluate(model, image(), maps, ["faithfulness_correlation"], 1)
        return [score.value for score in found]

    def test_they_run_low_where_this_agrees(self) -> None:
        low, full = (self.scores(Offset(0.0), kind) for kind in ("bfloat16", "float32"))
        assert low != full
        assert low == pytest.approx(full, abs=0.05)

    def test_they_run_in_float32_elsewhere_and_say_so(self) -> None:
        full = self.scores(Offset(1000.0), "float32")
        with pytest.warns(VoxplainWarning, match="so changed images were scored in float32"):
            assert self.scores(Offset(1000.0), "bfloat16") == full


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("kind", ["tf32", "bfloat16", "float16", "auto"])
def test_on_cuda(kind: Any) -> None:
    network, shown = segmenter(3).cuda(), image(3, 32).cuda()
    methods = [*METHODS, {"name": "integrated_gradients", "steps": 32, "label": "long"}]
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    low = explain(Model(network, precision=kind), shown, methods, CLASS)
    full = explain(Model(network, precision="float32"), shown, methods, CLASS)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
    for key, attribution in low.items():
        assert agreement(attribution.map, full[key].map) > 0.98, key
    assert ran(low["long"])[0] == ("bfloat16" if kind == "auto" else kind)
