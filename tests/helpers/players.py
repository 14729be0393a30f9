"""Cooperative games as networks: voxels are players, and a voxel of 0 is absent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from voxplain.attribution import Attribution, explain

Worth = Callable[[Tensor], Tensor]
"""From ``(n, players)`` in [0, 1] to ``(n,)``."""


class Game(nn.Module):
    """The score of class 0 is the value of the present players."""

    def __init__(self, worth: Worth) -> None:
        super().__init__()
        self.worth = worth

    def forward(self, image: Tensor) -> Tensor:
        worth = self.worth(image.flatten(1))
        return torch.stack([worth, torch.zeros_like(worth)], dim=1)


def played(
    worth: Worth, players: int, method: str | dict[str, Any], seed: int = 0, rank: int = 2
) -> Attribution:
    """A game explained player by player, in float64."""
    spec = {"name": method} if isinstance(method, str) else method
    image = torch.ones(1, 1, *(1,) * (rank - 1), players, dtype=torch.float64)
    spelled = {"regions": {"kind": "blocks", "size": 1}, "fill": 0, "label": "asked", **spec}
    return explain(Game(worth), image, spelled, 0, seed=seed)["asked"][0]


def values(
    worth: Worth, players: int, method: str | dict[str, Any], seed: int = 0, rank: int = 2
) -> list[float]:
    """The value of each player."""
    return played(worth, players, method, seed, rank).map.flatten().tolist()
