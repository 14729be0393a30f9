"""Layers that are unused, return no tensor, have no spatial axes, or hold tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import assert_close, classifier, images, untouched
from torch import Tensor, nn

from voxplain.attribution import Attribution, explain
from voxplain.attribution.audit import audit
from voxplain.errors import ModelError, TargetError, VoxplainError

CLASS_ONE: dict[str, Any] = {"kind": "class_score", "label": 1}


def layer_maps(
    network: nn.Module, shown: Tensor, name: str, layers: Any, **options: Any
) -> dict[str, Attribution]:
    method = {"name": name, "layers": layers, **options}
    with untouched(network):
        return explain(network, shown, method, CLASS_ONE)


class Branching(nn.Module):
    """A layer that runs and is not used, one that never runs, and one that returns a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Conv2d(1, 2, 3, padding=1)
        self.unused = nn.Conv2d(1, 2, 3, padding=1)
        self.never = nn.Conv2d(1, 2, 3, padding=1)
        self.constant = nn.Linear(1, 4)
        self.pair = Pair()
        self.named = Named()

    def forward(self, image: Tensor) -> Tensor:
        self.unused(image)
        self.constant(torch.ones(1, 1))
        first, _ = self.pair(self.used(image))
        return self.named(values=first)["values"]


class Pair(nn.Module):
    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        return values * 2, values * 3


class Named(nn.Module):
    def forward(self, values: Tensor) -> dict[str, Tensor]:
        return {"values": values.clone()}


class TestOddLayers:
    def test_not_used(self) -> None:
        attributions = layer_maps(Branching(), images(), "vanilla_layer_visualization", "unused")
        (attribution,) = attributions.values()
        assert not attribution.map.any()
        assert any("reaches layer 'unused'" in t for t in attribution.stats.warnings)
        assert any("zero everywhere" in text for text in attribution.stats.warnings)

    def test_the_first_tensor_of_a_tuple(self) -> None:
        network, shown = Branching(), images()
        (attribution,) = layer_maps(network, shown, "layer_activation", "pair[0]").values()
        assert_close(attribution.map, 2 * network.used(shown).detach(), 1e-6)

    @pytest.mark.parametrize(
        ("layer", "side", "words"),
        [
            ("never", "output", "never"),
            ("named", "output", "a dict as its output, no tensor; choose a layer inside it"),
            ("named", "input", "called with keywords only; choose its output"),
            ("usde", "output", r"the network has no layer 'usde'; did you mean used"),
        ],
    )
    def test_sentences(self, layer: str, side: str, words: str) -> None:
        with pytest.raises(ModelError, match=words):
            layer_maps(Branching(), images(), "layer_gradient_x_activation", layer, side=side)

    def test_layers_that_do_not_depend_on_the_image(self) -> None:
        with pytest.raises(VoxplainError, match="does not depend on the image"):
            layer_maps(Branching(), images(), "vanilla_layer_visualization", "constant")

    def test_scores_that_cannot_be_differentiated(self) -> None:
        class Labels(nn.Module):
            def forward(self, image: Tensor) -> Tensor:
                return image.detach().flatten(1)[:, :2]

        with pytest.raises(
            TargetError, match="does not depend on the image through differentiable"
        ):
            explain(Labels(), images(), "saliency", 1)

    def test_cams_need_places(self) -> None:
        words = (
            "layer 'head' has no places in the image left; choose a layer with spatial axes, suc"
        )
        with pytest.raises(ModelError, match=words):
            explain(classifier(), images(), {"name": "grad_cam", "layer": "head"}, 1)
        linear = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
        with pytest.raises(ModelError, match="no layer before the head has several channels"):
            explain(linear, images(), "grad_cam", 1)


@pytest.mark.parametrize("rank", [2, 3])
def test_tokens_return_to_their_grid(rank: int) -> None:
    """A transformer's tokens are ``(B, N, K)``; their maps lie on the image."""
    vit = pytest.importorskip("monai.networks.nets").ViT
    torch.manual_seed(0)
    network = vit(
        1, (16,) * rank, (4,) * rank, hidden_size=12, mlp_dim=24, num_layers=2, num_heads=3,
        classification=True, num_classes=3, spatial_dims=rank, post_activation=None,
    ).eval()  # fmt: skip
    from voxplain.models.model import Model

    model = Model(network, head=0)
    shown = images(rank, batch=2, size=16)
    methods: list[Any] = [
        {"name": "layer_activation", "layers": "blocks.1"},
        {"name": "layer_grad_cam", "layers": "blocks.0"},
        {"name": "grad_cam", "layer": "blocks.0", "relu": False},
        {"name": "vanilla_layer_visualization", "layers": "blocks.1.norm1"},
    ]
    with untouched(network):
        attributions = explain(model, shown, methods, CLASS_ONE)
    grid = (4,) * rank
    assert attributions["layer_activation"].map.shape == (2, 12, *grid)
    assert attributions["layer_grad_cam"].map.shape == (2, 1, *grid)
    assert attributions["grad_cam"].map.shape == (2, 1, *shown.shape[2:])
    assert attributions["grad_cam"].map.std() > 0
    activations: list[Tensor] = []
    handle = network.blocks[1].register_forward_hook(
        lambda _, __, output: activations.append(output)
    )
    with torch.no_grad():
        network(shown)
    handle.remove()
    tokens = activations[0][:, 1:]  # the class token has no place
    expected = tokens.transpose(1, 2).reshape(2, 12, *grid)
    assert_close(attributions["layer_activation"].map, expected, 1e-6)
    unit = {"kind": "unit", "layer": "blocks.1", "channel": 3, "position": (1,) * rank}
    of_unit = explain(model, shown, "saliency", unit)["saliency"]
    assert of_unit.stats.scores == pytest.approx(
        expected[(slice(None), 3, *(1,) * rank)].tolist(), rel=1e-4
    )


def test_tokens_in_half_precision() -> None:
    """The precision check arranges tokens too."""
    vit = pytest.importorskip("monai.networks.nets").ViT
    from voxplain.models.model import Model

    network = vit(
        1, (8, 8), (4, 4), hidden_size=12, mlp_dim=24, num_layers=1, num_heads=3,
        classification=True, num_classes=2, spatial_dims=2, post_activation=None,
    ).eval()  # fmt: skip
    model = Model(network, head=0, precision="bfloat16")
    unit = {"kind": "unit", "layer": "blocks.0", "channel": 3}
    attribution = explain(model, images(size=8), "saliency", unit)["saliency"]
    assert attribution.map.std() > 0


class FunctionNetwork(nn.Module):
    """A network of one function, summed over positions."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x).sum(dim=(2, 3))


def test_functions_without_a_derivative_are_errors_of_one_sentence() -> None:
    shown = torch.rand(1, 2, 5, 5)
    gamma = FunctionNetwork(lambda x: torch.igamma(x, torch.ones_like(x)))
    with pytest.raises(ModelError, match="cannot be differentiated: the derivative for 'igamma"):
        explain(gamma, shown, "saliency", 1)
    assert any("igamma" in name for name in audit(gamma, shown).unknown)
    bessel = FunctionNetwork(torch.special.bessel_j0)
    with pytest.raises(TargetError, match="does not depend on the image through"):
        explain(bessel, shown, "saliency", 1)
    with pytest.raises(ModelError, match="no gradient flows"):
        audit(bessel, shown)


def test_full_grad_counts_the_implicit_bias_of_rms_norms() -> None:
    """x -> x / rms(x) does not scale with x, so all of it is bias."""
    norm = nn.RMSNorm(6, eps=1e-12)
    network = nn.Sequential(norm, nn.Linear(6, 2, bias=False)).double()
    x = torch.randn(3, 6, dtype=torch.float64)
    whole = explain(network, x, "full_grad", 1)["full_grad"].map
    assert torch.isfinite(whole).all()
    product = explain(network, x, "input_x_gradient", 1)["input_x_gradient"].map
    torch.testing.assert_close(product.sum(1), torch.zeros(3).double(), atol=1e-9, rtol=0)


def test_a_network_without_parameters_keeps_the_type_of_the_image() -> None:
    attributions = explain(nn.Flatten(), torch.rand(2, 1, 3, 3, dtype=torch.float64), "saliency", 1)
    assert attributions["saliency"].map.dtype is torch.float64
