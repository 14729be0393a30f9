"""Collects what streams bring: per method, per image, over noisy copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from voxplain.attribution.method import Method, Results
from voxplain.attribution.reducers import OverDraws
from voxplain.attribution.runner import Reduced
from voxplain.attribution.samplers import Item
from voxplain.attribution.streams import AnyStream


class PerImage:
    """The maps of one method: one per image, summed up over noisy copies."""

    def __init__(self, method: Method, count: int) -> None:
        noise = method.noise()
        self._statistic = noise.statistic if noise else "mean"
        self._rows: list[dict[str | None, OverDraws]] = [{} for _ in range(count)]

    def add(self, row: int, maps: Mapping[str | None, Tensor]) -> None:
        """Takes in the maps of one item."""
        for layer, map in maps.items():
            self._rows[row].setdefault(layer, OverDraws(self._statistic)).update(map)

    def stacked(self) -> dict[str | None, Tensor]:
        """``(B, ...)`` by layer path."""
        layers = self._rows[0]
        return {layer: torch.stack([row[layer].result() for row in self._rows]) for layer in layers}


def by_request(
    method: Method, streams: list[AnyStream], reduced: Mapping[int, Reduced], item: Item
) -> Results:
    """What the streams of a group brought to one method for one item."""
    found: dict[int, dict[Any, Tensor]] = {}
    for stream in streams:
        for slot, tensor in reduced[id(stream)].tensors.items():
            if slot.method == method.key:
                found.setdefault(slot.request, {})[slot.place] = tensor
    return Results(tuple(found[index] for index in sorted(found)), item)
