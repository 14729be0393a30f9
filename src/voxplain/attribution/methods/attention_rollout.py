"""Attention rollout: the attention of a transformer, followed through all its layers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.gradients.reducers import MeanGradient
from voxplain.engine.gradients.samplers import Original
from voxplain.engine.method import Method, register
from voxplain.engine.requests import GradientRequest
from voxplain.engine.rules.attention_maps import AttentionMap, attention_maps
from voxplain.engine.stream_io import StreamResults
from voxplain.engine.taps import Side, Tap
from voxplain.errors import ModelError
from voxplain.models.geometry import LayerGeometry


@register
class AttentionRollout(Method):
    """The patches that a transformer attends to, through all its layers; not specific to a class.

    The map does not depend on the target: gradients and scores are not used. It follows
    self-attention over one grid of tokens, as in ViT and UNETR. Attention within windows, as in
    Swin, is refused.

    Attributes:
        token: The token whose attention is shown: the class token, or the mean over all patches;
            ``auto`` takes the class token where there is one.
    """

    family = "layer"
    formula = "product over the layers of (mean over heads of A + I) / 2, rows normalized"
    reference = "Abnar and Zuidema, 2020"
    units = "share of the attention"
    positive = True
    resampling = "value"
    exact_in_windows = False
    name: Literal["attention_rollout"] = "attention_rollout"
    token: Literal["auto", "class", "mean"] = Field(
        default="auto", description="the token whose attention is shown"
    )

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """The plain pass at the image, shared with other methods; its gradient is not used."""
        return (GradientRequest(Original(), MeanGradient),)

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """One channel on the image grid; windows of a windowed network are blended."""
        image = results.item.image
        if context.layout is None:
            grid, cells = self._cells(context, image[None])
            return {None: context.layers.on_image(grid.tap, cells)}
        padded = context.layout.pad(image)
        windows = []
        for position in context.layout.positions:
            grid, cells = self._cells(context, context.layout.cut(padded, [position]))
            windows.append(cells)
        return {None: context.layers.on_image(grid.tap, torch.stack(windows, dim=1), "blend")}

    def _cells(self, context: Context, image: Tensor) -> tuple[TokenGrid, Tensor]:
        """The rollout of one call of the network, ``(1, *cells)``."""
        model = context.model
        with model.at_rest():
            layers = attention_maps(model, model.network, image.to(model.dtype))
        if not layers:
            raise ModelError(
                f"{type(model.network).__name__} has no attention between tokens (a softmax whose "
                "result weights values); attention_rollout is for transformers"
            )
        grid = token_grid(context, layers[0].path, layers[0].weights.shape[-1])
        _require_one_grid(layers)
        rolled = rollout([layer.weights for layer in layers])
        return grid, grid.cells(self._row(grid, rolled))

    def _row(self, grid: TokenGrid, rolled: Tensor) -> Tensor:
        """The row of the class token, or the mean over the rows of the patches."""
        if self.token == "mean" or (self.token == "auto" and grid.class_token is None):
            return rolled[grid.index.flatten()].mean(0)
        if grid.class_token is None:
            raise ModelError(
                "the network has no class token, as is usual for segmentation; token: mean shows "
                "what its patches attend to, on average"
            )
        return rolled[grid.class_token]


def rollout(weights: list[Tensor]) -> Tensor:
    """The attention of the last layer to the tokens of the first.

    Args:
        weights: Per layer ``(heads, n, n)``, rows sum to 1.

    Returns:
        ``(n, n)``, rows sum to 1: from the queries of the last layer to the input tokens.
    """
    rolled = torch.eye(weights[0].shape[-1], dtype=torch.float64, device=weights[0].device)
    for layer in weights:
        mixed = layer.double().mean(0) + torch.eye(len(rolled)).to(rolled)
        rolled = (mixed / mixed.sum(-1, keepdim=True)) @ rolled
    return rolled


def _require_one_grid(layers: list[AttentionMap]) -> None:
    """Refuses layers whose attention matrices cannot be multiplied."""
    tokens = layers[0].weights.shape[-1]
    for layer in layers:
        queries, keys = layer.weights.shape[-2:]
        if queries != keys:
            raise ModelError(
                f"the attention in {layer.path!r} is from {queries} tokens to {keys} others; "
                "attention_rollout follows self-attention alone"
            )
        if keys != tokens:
            raise ModelError(
                f"the attention in {layer.path!r} has {keys} tokens and that in "
                f"{layers[0].path!r} {tokens}; attention_rollout needs the same tokens in all "
                "layers"
            )


@dataclass(frozen=True, eq=False)
class TokenGrid:
    """The grid of cells in the image that the tokens stand for.

    Attributes:
        tap: The layer whose input or output the tokens are.
        index: Number of the token of each cell, ``(*cells)``.
        class_token: Number of the first token without a place in the image, or None.
    """

    tap: Tap
    index: Tensor
    class_token: int | None

    def cells(self, values: Tensor) -> Tensor:
        """Values of the tokens ``(n,)`` as a map ``(1, *cells)``."""
        return values[self.index.to(values.device)][None]


def token_grid(context: Context, path: str, count: int) -> TokenGrid:
    """The grid of the tokens of an attention layer.

    Args:
        context: Gives the geometry of layers.
        path: Of the innermost module around the attention.
        count: Number of tokens, those without a place in the image included.

    Raises:
        ModelError: If the tokens are those of windows, or are not patches of the image.
    """
    for tap in _enclosing(path):
        try:
            geometry = context.layers.geometry(tap)
        except ModelError:  # not called with a tensor of its own
            continue
        shape = geometry.layout.shape if geometry.layout else ()
        if len(shape) == 3 and shape[1] == count and shape[0] > 1:
            raise ModelError(
                f"the attention in {path!r} stays within {shape[0]} windows of {count} tokens "
                "each, and shifted windows are no one grid to roll out over; attention_rollout is "
                "for transformers with one grid of tokens, such as ViT and UNETR"
            )
        if (grid := _grid(tap, geometry, shape, count)) is not None:
            return grid
    for info in context.layers.listed:  # where the network itself computes the attention
        shape = info.geometry.layout.shape if info.geometry.layout else ()
        if (grid := _grid(Tap(info.path), info.geometry, shape, count)) is not None:
            return grid
    raise ModelError(
        f"the {count} tokens of the attention in {path!r} are no grid of patches of the image"
    )


def _enclosing(path: str) -> Iterator[Tap]:
    """The input and the output of a module, then those of the modules around it."""
    sides: tuple[Side, ...] = ("input", "output")
    while path:
        yield from (Tap(path, side) for side in sides)
        path = path.rpartition(".")[0]


def _grid(
    tap: Tap, geometry: LayerGeometry, shape: tuple[int, ...], count: int
) -> TokenGrid | None:
    """The grid of tokens ``(1, n, features)`` or ``(n, 1, features)``; None for other layers."""
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
