"""The method on a score whose gradient is known everywhere."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import voxplain as vx


class Parabola(nn.Module):
    """S(x) = sum of (x - 1)^2, whose gradient changes its sign at 1."""

    def forward(self, image: Tensor) -> Tensor:
        """Both classes get the same score."""
        return (image - 1).square().flatten(1).sum(dim=1, keepdim=True).repeat(1, 2)


def test_the_sign_changes_where_the_gradient_does() -> None:
    """The share of the way before and after the change, at 32 points of it."""
    image = torch.tensor([[[[-1.0, 0.5], [2.0, 4.0]]]])
    methods = ["integrated_gradients", {"name": "gradient_sign_agreement", "steps": 32}]
    attributions = vx.explain(Parabola(), image, methods, target=1)
    agreement = attributions["gradient_sign_agreement"]
    # From 0 to 2 the gradient is negative for one half of the way, from 0 to 4 for a quarter.
    expected = torch.tensor([[[[-1.0, -1.0], [0.0, 0.5]]]])
    torch.testing.assert_close(agreement.map, expected, atol=0.1, rtol=0)
    assert agreement.stats.shared_with == ("integrated_gradients",)
    assert agreement.stats.passes == 32
