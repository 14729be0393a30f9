"""Collects what streams bring: per method, per image, over noisy copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from voxplain.attribution.item_sums import Reduced
from voxplain.attribution.method import Conclusion, Method, Results
from voxplain.attribution.reducers import OverDraws
from voxplain.attribution.samplers import Item
from voxplain.attribution.scene import Scene
from voxplain.attribution.streams import AnyStream


class PerImage:
    """The maps of one method: one per image, summed up over noisy copies."""

    def __init__(self, method: Method, count: int) -> None:
        noise = method.noise()
        self._method = method
        self._statistic = noise.statistic if noise else "mean"
        self._rows: list[dict[str | None, OverDraws]] = [{} for _ in range(count)]

    def add(self, row: int, maps: Mapping[str | None, Tensor]) -> None:
        """Takes in the maps of one item."""
        for layer, map in maps.items():
            self._rows[row].setdefault(layer, OverDraws(self._statistic)).update(map)

    def concluded(self, images: Tensor, scene: Scene) -> list[Conclusion]:
        """What the method makes of its maps, per image."""
        return [
            self._method.conclude(
                {layer: sums.result() for layer, sums in row.items()}, image, scene
            )
            for row, image in zip(self._rows, images, strict=True)
        ]


def stacked(concluded: Sequence[Conclusion]) -> dict[str | None, Tensor]:
    """The maps of all images, ``(B, ...)`` by layer path."""
    layers = concluded[0].maps
    return {layer: torch.stack([one.maps[layer] for one in concluded]) for layer in layers}


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
