"""Attention rollout: what the attention of a transformer draws on, through all its layers."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.attribution.method import Method, Request, Resampling, Results, register
from voxplain.attribution.reducers import MeanGradient
from voxplain.attribution.rules.attention_maps import AttentionMap, attention_maps
from voxplain.attribution.samplers import Original
from voxplain.attribution.scene import Scene
from voxplain.attribution.tokens import TokenGrid, token_grid
from voxplain.errors import ModelError


@register
class AttentionRollout(Method):
    """Which patches the attention of a transformer draws on; not specific to a class.

    Whatever the target, the map is the same: gradients and scores take no part in it. It follows
    self-attention over one grid of tokens, as in ViT and UNETR; attention within windows, as in
    Swin, mixes tokens of a window alone and is refused.

    Attributes:
        token: Whose view is shown: that of the class token, or the mean over all patches;
            ``auto`` takes the class token where there is one.
    """

    family = "layer"
    formula = "product over the layers of (mean over heads of A + I) / 2, rows normalized"
    reference = "Abnar and Zuidema, 2020"
    units = "share of the attention"
    positive = True
    resampling: ClassVar[Resampling] = "value"
    exact_in_windows: ClassVar[bool] = False
    name: Literal["attention_rollout"] = "attention_rollout"
    token: Literal["auto", "class", "mean"] = Field(
        default="auto", description="whose view is shown"
    )

    def requests(self, scene: Scene) -> tuple[Request, ...]:
        """The plain pass at the image, shared with other methods; its gradient is not used."""
        return (Request(Original(), MeanGradient),)

    def maps(self, results: Results, scene: Scene) -> dict[str | None, Tensor]:
        """One channel on the image grid; windows of a windowed network are blended."""
        image = results.item.image
        if scene.layout is None:
            grid, cells = self._cells(scene, image[None])
            return {None: scene.on_image(grid.tap, cells)}
        padded = scene.layout.pad(image)
        parts = []
        for position in scene.layout.positions:
            grid, cells = self._cells(scene, scene.layout.cut(padded, [position]))
            parts.append(cells)
        return {None: scene.on_image(grid.tap, torch.stack(parts, dim=1), "blend")}

    def _cells(self, scene: Scene, image: Tensor) -> tuple[TokenGrid, Tensor]:
        """The rollout of one call of the network, ``(1, *cells)``."""
        model = scene.model
        with model.at_rest():
            found = attention_maps(model, model.network, image.to(model.dtype))
        if not found:
            raise ModelError(
                f"{type(model.network).__name__} has no attention between tokens (a softmax whose "
                "result weights values); attention_rollout is for transformers"
            )
        grid = token_grid(scene, found[0].path, found[0].weights.shape[-1])
        _require_one_grid(found)
        return grid, grid.cells(self._view(grid, rollout([one.weights for one in found])))

    def _view(self, grid: TokenGrid, rolled: Tensor) -> Tensor:
        """The row of the class token, or the mean of those of the patches."""
        if self.token == "mean" or (self.token == "auto" and grid.class_token is None):
            return rolled[grid.index.flatten()].mean(0)
        if grid.class_token is None:
            raise ModelError(
                "the network has no class token, as is usual for segmentation; token: mean shows "
                "what its patches draw on, on average"
            )
        return rolled[grid.class_token]


def rollout(weights: list[Tensor]) -> Tensor:
    """The attention of the last layer to the tokens of the first.

    Args:
        weights: Per layer ``(heads, n, n)``, rows sum to 1.

    Returns:
        ``(n, n)``, rows sum to 1: query of the last layer, token before the first one.
    """
    rolled = torch.eye(weights[0].shape[-1], dtype=torch.float64, device=weights[0].device)
    for layer in weights:
        mixed = layer.double().mean(0) + torch.eye(len(rolled)).to(rolled)
        rolled = (mixed / mixed.sum(-1, keepdim=True)) @ rolled
    return rolled


def _require_one_grid(found: list[AttentionMap]) -> None:
    """Refuses what no product over layers is defined for."""
    tokens = found[0].weights.shape[-1]
    for one in found:
        queries, keys = one.weights.shape[-2:]
        if queries != keys:
            raise ModelError(
                f"the attention in {one.path!r} looks from {queries} tokens at {keys} others; "
                "attention_rollout follows self-attention alone"
            )
        if keys != tokens:
            raise ModelError(
                f"the attention in {one.path!r} has {keys} tokens and that in {found[0].path!r} "
                f"{tokens}; attention_rollout needs the same tokens in all layers"
            )
