"""Samplers over the channels of a layer: as masks on the image, or replaced at the layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.masks.channel_groups import Groups, group_channels, group_sums
from voxplain.engine.masks.dense import ActivationMasks
from voxplain.engine.masks.layer_channels import LayerChannels
from voxplain.engine.masks.masks import Masks
from voxplain.engine.masks.samplers import MaskSampler
from voxplain.engine.stream_io import StreamInput
from voxplain.engine.taps import Tap, tapping
from voxplain.errors import ModelError

Level = float | Literal["mean"]
"""The value that replaces a channel: a number, or its mean over positions."""


@dataclass(frozen=True)
class _ChannelSampler(MaskSampler):
    """Base of the samplers that need the activation of the image.

    Attributes:
        tap: The layer.
        most: Largest number of groups of channels; None for one group per channel.
    """

    tap: Tap
    most: int | None = None

    @property
    def taps(self) -> tuple[Tap, ...]:
        return (self.tap,)

    def _groups(self, context: Context) -> int:
        channels = context.layers.channels(self.tap)
        return channels if self.most is None else min(channels, self.most)


@dataclass(frozen=True)
class ChannelsAsMasks(_ChannelSampler):
    """Every channel (or group of channels) as a mask on the image, and one that removes all."""

    def masks(self, item: StreamInput, context: Context) -> Masks:
        tapped = activation_of(item, self.tap, context)
        activation = tapped.activation
        groups: Groups = group_channels(activation, self.most)
        sums = group_sums(activation, groups)
        return ActivationMasks(sums, groups, self.tap, context, context.shape, tapped.remark)

    def expected(self, context: Context) -> int:
        return self._groups(context) + 1


@dataclass(frozen=True)
class ChannelsOff(_ChannelSampler):
    """Every channel (or group of channels) replaced alone.

    Attributes:
        level: The value that replaces it.
    """

    level: Level = 0.0

    def masks(self, item: StreamInput, context: Context) -> Masks:
        tapped = activation_of(item, self.tap, context)
        activation, last_call = tapped.activation, self._last_call(tapped.calls, context)
        groups, flat = group_channels(activation, self.most), activation.flatten(1)
        levels = (
            flat.mean(dim=1) if self.level == "mean" else torch.full_like(flat[:, 0], self.level)
        )
        return LayerChannels(
            self.tap,
            last_call,
            groups,
            levels,
            activation,
            tapped.placed,
            context,
            context.shape,
            tapped.remark,
        )

    def _last_call(self, calls: int, context: Context) -> Tap:
        """The call whose activation was tapped: the last one if a layer is called repeatedly."""
        if calls == 1:
            return self.tap
        if context.layout is not None:
            raise ModelError(
                f"layer {self.tap.module!r} is called {calls} times in every window; its channels "
                "can be replaced in networks without windows only"
            )
        if self.tap.call >= 0:
            return self.tap
        return replace(self.tap, path=f"{self.tap.path}#{calls - 1}")

    def expected(self, context: Context) -> int:
        return self._groups(context)


@dataclass(frozen=True, eq=False)
class TappedActivation:
    """The activation of a layer for an image.

    Attributes:
        activation: ``(K, *cells)``; ``(K, windows, *cells)`` in windows.
        calls: Number of calls of the layer for the image, or for a window.
        placed: Whether every value has a place in the image; class tokens have none.
        remark: Which of several calls was taken, in a sentence; else None.
    """

    activation: Tensor
    calls: int
    placed: bool
    remark: str | None


def activation_of(item: StreamInput, tap: Tap, context: Context) -> TappedActivation:
    """The activation of a layer for an image, tapped in one forward."""
    model, layout = context.model, context.layout
    if item.image.dtype is torch.float64:
        model = model.in_double()
    batches, values = [], 0
    with torch.no_grad(), model.at_rest():
        if layout is None:
            with tapping(model.network, (tap,)) as tapped:
                model(item.image[None])
            values = tapped[tap].numel()
            activation = context.layers.arranged(tap, tapped[tap]).detach()[0]
        else:
            padded = layout.pad(item.image)
            for positions in layout.batches(model.windows_at_once):
                with tapping(model.network, (tap,)) as tapped:
                    model(layout.cut(padded, positions))
                batches.append(context.layers.arranged(tap, tapped[tap]).detach())
                values += tapped[tap].numel()
            activation = torch.cat(batches).transpose(0, 1)
    placed = activation.numel() == values
    return TappedActivation(activation, tapped.calls(tap), placed, tapped.repeated(tap))
