"""The network under study: heads, precision, windows, and errors of networks that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import classifier, images, segmenter, untouched
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.errors import ConfigError, ModelError, TargetError, VoxplainWarning
from voxplain.models.failures import GradientError
from voxplain.models.model import Model
from voxplain.models.precision import agreement


class Several(nn.Module):
    """Deep supervision in three shapes."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.network = segmenter()

    def forward(self, image: Tensor) -> Any:
        main = self.network(image)
        coarse = nn.functional.avg_pool2d(main, 2)
        if self.kind == "dict":
            return {"logits": main, "deep": coarse}
        return [coarse, main] if self.kind == "list" else (coarse, main)


HEADS = [
    ("dict", "logits"),
    ("list", 1),
    ("tuple", -1),
    ("tuple", lambda output: output[1]),
    ("dict", lambda output: output["logits"]),
]


@pytest.mark.parametrize(("kind", "head"), HEADS)
def test_heads_choose_the_explained_output(kind: str, head: Any) -> None:
    network = Several(kind)
    model = Model(network, head=head)
    shown = images()
    plain = segmenter()
    assert torch.equal(model.output(shown), plain(shown))
    for window in (None, {"size": 4, "overlap": 0.5}):
        methods = ["saliency", "deep_lift", {"name": "grad_cam", "layer": "network.act2"}]
        attributions = explain(Model(network, head=head, window=window), shown, methods, 1)
        methods[2] = {"name": "grad_cam", "layer": "act2"}
        expected = explain(Model(plain, window=window), shown, methods, 1)
        for key, attribution in expected.items():
            torch.testing.assert_close(attributions[key].map, attribution.map)


@pytest.mark.parametrize(
    ("kind", "head", "words"),
    [
        (
            "dict",
            "logit",
            r"head='logit' does not fit a dict with keys 'logits', 'deep'; did you mean",
        ),
        ("dict", 0, "head=0 does not fit a dict with keys"),
        ("list", 5, "head=5 does not fit a list of 2 parts"),
        ("tuple", "logits", "head='logits' does not fit a tuple of 2 parts"),
        ("dict", None, r"returns a dict with keys 'logits', 'deep'; choose a part with head="),
        ("tuple", None, "the network returns a tuple of 2 parts; choose a part with head="),
    ],
)
def test_heads_that_do_not_fit(kind: str, head: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Model(Several(kind), head=head).output(images())


class Wrong(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, image: Tensor) -> Any:
        return self.function(image)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda image: image.flatten(), r"maps \(1, 1, 6, 6\) to \(36,\); voxplain needs"),
        (lambda image: image.sum(), r"to \(\); voxplain needs"),
        (lambda _: "text", "the network returns a str; choose a part"),
    ],
)
def test_outputs_that_cannot_be_explained(function: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Model(Wrong(function)).output(images(batch=2))


def test_data_parallel_is_refused() -> None:
    with pytest.raises(ModelError, match=r"pass network\.module"):
        Model(nn.DataParallel(classifier()))


def test_facts() -> None:
    model = Model(segmenter(), head=None, window={"size": 4}, name="unet", classes=["a", "b", "c"])
    facts = model.facts
    assert facts.name == "unet"
    assert facts.parameters == sum(parameter.numel() for parameter in segmenter().parameters())
    assert facts.weights_sha256 == Model(segmenter()).facts.weights_sha256
    assert facts.window is not None
    assert facts.window["size"] == 4
    other = segmenter()
    with torch.no_grad():
        other.head.bias[0] += 1
    assert Model(other).facts.weights_sha256 != facts.weights_sha256
    assert Model(segmenter().double()).facts.precision == "float64"
    assert Model(segmenter()).facts.precision == "float32"


def test_networks_without_parameters() -> None:
    model = Model(nn.Identity())
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)


def test_at_rest_puts_every_flag_back() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout()).train()
    network[1].eval()
    network[0].bias.requires_grad_(False)
    with untouched(network):
        with Model(network).at_rest():
            assert not any(module.training for module in network.modules())
            assert not any(parameter.requires_grad for parameter in network.parameters())
        with pytest.raises(ZeroDivisionError), Model(network).at_rest():
            raise ZeroDivisionError


def test_classes_are_named_in_words() -> None:
    model = Model(segmenter(), classes=["background", "gray", "white"])
    attribution = explain(model, images(), "saliency", {"kind": "pixelwise", "label": 1})[
        "saliency"
    ]
    assert "class 1 (gray)" in attribution.target[0].in_words


class TestPrecision:
    def test_auto(self) -> None:
        network = segmenter()
        assert Model(network).resolved_precision == "float32"
        assert Model(network.double()).resolved_precision == "float64"
        assert Model(network, precision="bfloat16").resolved_precision == "bfloat16"

    def test_agreement(self) -> None:
        a, b = torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])
        assert agreement(a, b) == pytest.approx(24 / 25)
        assert agreement(a, a) == pytest.approx(1)
        assert agreement(a, 7 * a) == pytest.approx(14 / 50)  # as long as it is said to be
        assert agreement(a, -a) == pytest.approx(-1)
        assert agreement(a * 0, a) == 0
        assert agreement(a, a * float("nan")) == 0
        assert agreement(torch.tensor([float("inf"), 0.0]), a) == 0

    @pytest.mark.parametrize("window", [None, {"size": 4, "overlap": 0.5}])
    def test_half_precision_is_used_where_it_agrees(self, window: Any) -> None:
        network, shown = segmenter(), images()
        methods = [
            "saliency",
            {"name": "integrated_gradients", "steps": 4},
            "grad_cam",
            "deep_lift",
        ]
        model = Model(network, precision="bfloat16", window=window)
        with untouched(network):
            half = explain(model, shown, methods, 1)
        full = explain(Model(network, window=window), shown, methods, 1)
        for key in ("saliency", "integrated_gradients", "grad_cam"):
            assert half[key].stats.streams[0]["precision"] == "bfloat16"
            assert half[key][0].sidecar.model.precision == "bfloat16"
            assert half[key].map.dtype == torch.float32
            assert not torch.equal(half[key].map, full[key].map)
            assert agreement(half[key].map, full[key].map) > 0.97

    @pytest.mark.parametrize("window", [None, {"size": "4mm", "overlap": 0.5}])
    def test_a_network_that_half_precision_breaks_runs_in_float32(self, window: Any) -> None:
        class Cancels(nn.Module):
            """Differences of large numbers: bfloat16 has 8 bits."""

            def __init__(self) -> None:
                super().__init__()
                self.first = nn.Conv2d(1, 8, 3, padding=1)
                self.second = nn.Conv2d(8, 2, 3, padding=1)

            def forward(self, image: Tensor) -> Tensor:
                large = self.first(image) + 3000
                return self.second((large - 3000).relu() * torch.sin(large * 50))

        torch.manual_seed(0)
        network = Cancels()
        from voxplain.image import Image

        image = Image.from_array(images()[0], spacing=1.0)
        methods = ["saliency", {"name": "smoothgrad", "of": "saliency", "samples": 2}]
        target = {"kind": "class_score", "label": 1}
        attributions = explain(
            Model(network, precision="bfloat16", window=window), image, methods, target
        )
        full = explain(Model(network, window=window), image, methods, target)
        for key, attribution in attributions.items():
            assert attribution.sidecar.stream[0]["precision"] == "float32"
            assert attribution.sidecar.model.precision == "float32"
            assert torch.equal(attribution.map, full[key].map)

    def test_float64_on_request(self) -> None:
        network, shown = segmenter(), images()
        for window in (None, {"size": 4, "overlap": 0.5}):
            model = Model(network, precision="float64", window=window)
            with untouched(network):
                methods = ["saliency", "deep_lift", {"name": "grad_cam", "layer": "act2"}]
                attributions = explain(model, shown, methods, 1)
            exact = explain(Model(segmenter().double(), window=window), shown, methods, 1)
            for key, attribution in attributions.items():
                assert attribution.stats.streams[0]["precision"] == "float64"
                torch.testing.assert_close(
                    attribution.map.double(), exact[key].map, rtol=1e-6, atol=1e-9
                )


class TestWindowed:
    def test_a_window_larger_than_the_image_pads_with_a_warning(self) -> None:
        network, shown = segmenter(), images(size=5)
        model = Model(network, window={"size": 8})
        with pytest.warns(
            VoxplainWarning, match=r"window \(8, 8\) is larger than the image \(5, 5\)"
        ):
            found = explain(model, shown, "saliency", 1)["saliency"].map
        padded = nn.functional.pad(shown, (1, 2, 1, 2)).requires_grad_(True)
        output = network(padded)[..., 1:6, 1:6]
        mask = output.argmax(1) == 1
        (expected,) = torch.autograd.grad((output[:, 1] * mask).sum(), padded)
        torch.testing.assert_close(found, expected[..., 1:6, 1:6])

    def test_millimeters_need_a_spacing(self) -> None:
        with pytest.raises(ConfigError, match="'4mm' needs the pixel size of the image"):
            explain(Model(segmenter(), window={"size": "4mm"}), images(), "saliency", 1)

    def test_wrong_options_are_named(self) -> None:
        with pytest.raises(ValueError, match="overlaps"):
            Model(segmenter(), window={"size": 4, "overlaps": 0.5})


class Failing(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def forward(self, image: Tensor) -> Tensor:
        raise self.error


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (RuntimeError("sizes must match\nat line 3"), r"\(RuntimeError: sizes must match\)"),
            (KeyError("lesion"), r"\(KeyError: 'lesion'\)"),
            (AssertionError(), r"\(AssertionError\)"),
            (ValueError("a" * 500), r"a{160}\)"),
            (NotImplementedError("no such thing"), r"\(NotImplementedError: no such thing\)"),
        ],
    )
    def test_an_error_of_the_network_becomes_one_sentence(
        self, error: Exception, words: str
    ) -> None:
        with pytest.raises(ModelError, match=words) as caught:
            Model(Failing(error)).output(images())
        assert caught.value.__cause__ is error
        assert "inputs of shape (1, 1, 6, 6)" in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "path", ["/data/smith/scan.nii", "data/smith.nii", r"C:\smith\scan.nii", "'/a/smith'"]
    )
    def test_paths_are_left_out(self, path: str) -> None:
        network = Failing(OSError(f"cannot open {path}, which is missing"))
        with pytest.raises(ModelError, match=r"cannot open .*, which is missing") as caught:
            Model(network).output(images())
        assert "smith" not in str(caught.value)

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
            MemoryError(),
            TimeoutError("the time limit is over"),
            KeyboardInterrupt(),
            TargetError("is not an error of the network"),
        ],
    )
    def test_errors_that_callers_handle_are_not_changed(self, error: BaseException) -> None:
        with pytest.raises(type(error)) as caught:
            Model(Failing(error)).output(images())
        assert caught.value is error

    def test_an_error_where_gradients_are_taken_speaks_of_them(self) -> None:
        model = Model(Failing(NotImplementedError("the derivative of x is not implemented.")))
        with pytest.raises(GradientError, match="cannot be differentiated: the derivative of x is"):
            model(images().requires_grad_())
        with pytest.raises(ModelError, match="fails on inputs"), torch.no_grad():
            model(images().requires_grad_())

    def test_a_head_that_fails(self) -> None:
        with pytest.raises(ModelError, match="ZeroDivisionError"):
            Model(segmenter(), head=lambda _: 1 / 0).output(images())
