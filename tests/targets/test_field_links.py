"""Masks of the voxels where a class is predicted."""

from __future__ import annotations

import pytest
import torch

from voxplain.targets.field import predicted_mask


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
@pytest.mark.parametrize("label", range(4))
def test_the_largest_score_wins_and_the_first_of_equal_ones(
    shape: tuple[int, ...], label: int
) -> None:
    torch.manual_seed(0)
    output = torch.randint(0, 3, (2, 4, *shape)).float()
    mask = predicted_mask(output, label, "softmax", 0.5)
    assert torch.equal(mask, output.argmax(dim=1) == label)
