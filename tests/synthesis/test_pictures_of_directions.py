"""Pictures of directions drive the cell at their center, and no padding."""

from __future__ import annotations

import pytest
import torch
from synthesis_cases import images
from torch import nn

from voxplain.synthesis import synthesize
from voxplain.synthesis.parametrizations import Pixels
from voxplain.synthesis.transforms import Transforms


@pytest.mark.parametrize("rank", [2, 3])
def test_only_what_reaches_the_center_changes(rank: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential((nn.Conv2d, nn.Conv3d)[rank - 2](2, 4, 3, padding=1), nn.Tanh())

    def picture(steps: int) -> torch.Tensor:
        method = {
            "name": "activation_grid",
            "steps": steps,
            "pictures_at_most": 1,
            "parametrization": Pixels(),
            "transforms": Transforms.none(),
            "extent": (9,) * rank,
        }
        (found,) = synthesize(network, images(rank)[0], method, "1").values()
        return found.images[0]

    changed = (picture(6) - picture(1)).abs().amax(dim=0) > 1e-6
    center = (slice(3, 6),) * rank
    assert bool(changed[center].any())
    changed[center] = False
    assert not bool(changed.any())
