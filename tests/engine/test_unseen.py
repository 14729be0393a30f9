"""Calls that a backward rule cannot see are reported, not silently given the plain gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import voxplain as vx
from voxplain.errors import RuleError


@torch.jit.script
def scripted_relu(x: Tensor) -> Tensor:
    return torch.relu(x)


class Hidden(nn.Module):
    """A network with a rectifier that no function mode sees."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(1, 3, 3, padding=1), nn.Conv3d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(scripted_relu(self.first(x)))


TARGET = {"kind": "region", "label": 1, "box": [[1, 4]] * 3}


@pytest.mark.parametrize("window", [None, {"size": 4, "overlap": 0.5}])
def test_deep_lift_refuses_a_hidden_rectifier(window: dict[str, float] | None) -> None:
    model = vx.Model(Hidden(), window=window)
    with pytest.raises(RuleError, match="did not see"):
        vx.explain(model, torch.randn(1, 1, 6, 6, 6), "deep_lift", TARGET)


def test_guided_backprop_warns_that_it_is_the_plain_gradient_there() -> None:
    attributions = vx.explain(Hidden(), torch.randn(1, 1, 6, 6, 6), "guided_backprop", TARGET)
    assert any("did not see" in text for text in attributions["guided_backprop"].stats.warnings)


def test_saliency_needs_no_rule_and_says_nothing() -> None:
    attributions = vx.explain(Hidden(), torch.randn(1, 1, 6, 6, 6), "saliency", TARGET)
    assert not attributions["saliency"].stats.warnings
