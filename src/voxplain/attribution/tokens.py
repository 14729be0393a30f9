"""Tokens of a transformer and the patches of the image that they stand for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.attribution.scene import Scene
from voxplain.attribution.taps import Side, Tap
from voxplain.errors import ModelError
from voxplain.geometry import LayerGeometry


@dataclass(frozen=True, eq=False)
class TokenGrid:
    """Which token is which cell.

    Attributes:
        tap: Where the tokens were found.
        index: Number of the token of each cell, ``(*cells)``.
        class_token: Number of the first token without a place in the image, or None.
    """

    tap: Tap
    index: Tensor
    class_token: int | None

    def cells(self, values: Tensor) -> Tensor:
        """Values of the tokens ``(n,)`` as a map ``(1, *cells)``."""
        return values[self.index.to(values.device)][None]


def token_grid(scene: Scene, path: str, count: int) -> TokenGrid:
    """The grid of the tokens that an attention works on.

    Args:
        scene: Follows the layers.
        path: Of the innermost module around the attention.
        count: Tokens, with those that have no place.

    Raises:
        ModelError: If the tokens are those of windows, or no patches of the image.
    """
    for tap in _around(path):
        try:
            geometry = scene.geometry(tap)
        except ModelError:  # not called with a tensor of its own
            continue
        shape = geometry.layout.shape if geometry.layout else ()
        if len(shape) == 3 and shape[1] == count and shape[0] > 1:
            raise ModelError(
                f"the attention in {path!r} stays within {shape[0]} windows of {count} tokens "
                "each, and shifted windows are no one grid to roll out over; attention_rollout is "
                "for transformers with one grid of tokens, such as ViT and UNETR"
            )
        if (found := _grid(tap, geometry, shape, count)) is not None:
            return found
    for info in scene.layers:  # the attention is written in the network itself
        shape = info.geometry.layout.shape if info.geometry.layout else ()
        if (found := _grid(Tap(info.path), info.geometry, shape, count)) is not None:
            return found
    raise ModelError(
        f"the {count} tokens of the attention in {path!r} are no grid of patches of the image"
    )


def _around(path: str) -> Iterator[Tap]:
    """The inputs, then the outputs, of a module and of those around it."""
    sides: tuple[Side, ...] = ("input", "output")
    while path:
        yield from (Tap(path, side) for side in sides)
        path = path.rpartition(".")[0]


def _grid(
    tap: Tap, geometry: LayerGeometry, shape: tuple[int, ...], count: int
) -> TokenGrid | None:
    """The cells of tokens ``(1, n, features)`` or ``(n, 1, features)``; None for other layers."""
    axes = [axis for axis in (0, 1) if shape[axis : axis + 1] == (count,)]
    if len(shape) != 3 or not axes or shape[1 - axes[-1]] != 1 or not geometry.spatial:
        return None
    numbers = torch.arange(count, dtype=torch.float64)
    columns = [count if axis == axes[-1] else 1 for axis in range(3)]
    index = geometry.as_map(numbers.reshape(columns).expand(shape))[0, 0].long()
    placed = {*index.flatten().tolist()}
    if not len(placed) == index.numel() == math.prod(geometry.shape):
        return None
    without = sorted({*range(count)} - placed)
    return TokenGrid(tap, index, without[0] if without else None)
