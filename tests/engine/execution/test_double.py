"""Float64 is used only where the network gives the scores of its own type."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from voxplain import Model, audit, explain


class _Norm(nn.Module):
    """A norm by the spread of the data between two convolutions; a step before it."""

    def __init__(self, step: str = "", eps: float | None = 1e-5) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv3d(1, 4, 3, padding=1, bias=False)
        self.norm, self.head = nn.RMSNorm(4, eps=eps), nn.Linear(4, 3)
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x.float() if self.step == "cast" else x)
        x = self.norm(x.movedim(1, -1)).relu().mean((1, 2, 3))
        if self.step == "constant":
            x = x @ torch.eye(4, dtype=torch.float32)
        return self.head(x)


def _image(scale: float = 1.0) -> Tensor:
    return torch.randn(1, 1, 6, 5, 4, generator=torch.Generator().manual_seed(2)) * scale


@pytest.mark.parametrize(
    ("network", "scale", "words"),
    [
        (_Norm("cast"), 1.0, "does not run in float64"),
        (_Norm("constant"), 1.0, "does not run in float64"),
        (_Norm(eps=None), 3e-4, "another score in float64"),
        (_Norm(), 1.0, ""),
    ],
    ids=["cast", "constant", "epsilon of the type", "plain"],
)
def test_deep_lift_explains_the_network_as_it_is(
    network: nn.Module, scale: float, words: str
) -> None:
    image = _image(scale)
    found = explain(network.eval(), image, "deep_lift", 1)["deep_lift"]
    with torch.no_grad():
        change = (network(image) - network(0 * image))[0, 1]
    assert float(found.map.sum()) == pytest.approx(float(change), rel=1e-3)
    assert found.stats.streams[0]["precision"] == ("float32" if words else "float64")
    said = " ".join(found.stats.warnings)
    assert words in said
    assert bool(words) == ("computed in float32" in said)


@pytest.mark.parametrize("step", ["cast", "constant", ""])
def test_audit_says_where_float64_is_no_use(step: str) -> None:
    found = audit(_Norm(step).eval(), _image(), ["deep_lift"])
    assert max(found.completeness.values()) < 1e-3
    assert bool(step) == ("float64" in " ".join(found.remarks["deep_lift"]))


MASKED: list[Any] = [
    {"name": "score_cam", "layer": "conv"},
    {"name": "ablation_cam", "layer": "conv"},
    {"name": "layer_feature_ablation", "layers": ["conv"]},
]


@pytest.mark.parametrize("window", [None, {"size": 4, "overlap": 0.5}])
def test_methods_over_channels_run_in_float64(window: dict[str, Any] | None) -> None:
    torch.manual_seed(0)
    network = nn.Sequential()
    network.add_module("conv", nn.Conv2d(1, 4, 3, padding=1))
    network.add_module("act", nn.Tanh())
    network.add_module("head", nn.Conv2d(4, 2, 1))
    image, target = _image()[..., 0], {"kind": "pixelwise", "label": 1}
    double, single = (
        explain(Model(network.eval(), window=window, precision=kind), image, MASKED, target)
        for kind in ("float64", "float32")
    )
    for key, found in double.items():
        assert found.stats.streams[0]["precision"] == "float64"
        torch.testing.assert_close(found.map, single[key].map, rtol=1e-3, atol=1e-5)


def test_a_precision_that_is_asked_for_and_not_possible_is_said() -> None:
    model = Model(_Norm("cast").eval(), precision="float64")
    found = explain(model, _image(), ["saliency", {"name": "occlusion", "window": 3}], 1)
    for attribution in found.values():
        assert attribution.stats.streams[0]["precision"] == "float32"
        assert "does not run in float64" in " ".join(attribution.stats.warnings)
