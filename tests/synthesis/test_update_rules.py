"""Steps of DeepDream: their size is that of voxels that may change."""

from __future__ import annotations

import pytest
import torch
from synthesis_cases import images
from torch import Tensor

from voxplain.synthesis import measure
from voxplain.synthesis.parametrizations import Pixels
from voxplain.synthesis.surface import Surface
from voxplain.synthesis.update_rules import NormalizedUpdate


@pytest.mark.parametrize("rank", [2, 3])
def test_a_gradient_outside_of_the_body_changes_no_step(rank: int) -> None:
    image = images(rank)[0]
    surface = Surface(image.grid, measure([image]), torch.zeros(1))
    start = image.data[None].float()
    inside = (image.data != 0).any(dim=0)
    limits = (torch.where(inside, start - 9, start), torch.where(inside, start + 9, start))
    gradient = torch.randn_like(start)

    def moved(outside: float) -> Tensor:
        canvas = Pixels(bounded=False).canvas(surface, ["a"], start)
        (voxels,) = canvas.parameters
        voxels.grad = torch.where(inside, gradient, outside)
        NormalizedUpdate(0.01, limits).begin(canvas, surface, 1.0)(0.5)
        return canvas.images().detach() - start

    quiet, loud = moved(0.0), moved(100.0)
    assert torch.allclose(quiet, loud)
    assert not bool(loud[..., ~inside].any())
    spans = surface.per_channel(surface.statistics.range)
    assert float((quiet / spans).abs()[..., inside].mean()) == pytest.approx(0.01, rel=1e-3)
