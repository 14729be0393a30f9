"""Samplers that look at the channels of a layer: as masks on the image, or replaced in place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.masks.channel_groups import Groups, group_sums, grouped
from voxplain.engine.masks.dense import ActivationMasks
from voxplain.engine.masks.layer_channels import LayerChannels
from voxplain.engine.masks.masks import Masks
from voxplain.engine.masks.samplers import MaskSampler
from voxplain.engine.stream_io import StreamInput
from voxplain.engine.taps import Tap, tapping
from voxplain.errors import ModelError

Level = float | Literal["mean"]
"""What a channel becomes: a number, or its mean over positions."""


@dataclass(frozen=True)
class _ChannelSampler(MaskSampler):
    """Looks at the activation of the image, caught in one forward.

    Attributes:
        tap: The layer.
        most: Into how many groups its channels are gathered at most; None for one each.
    """

    tap: Tap
    most: int | None = None

    @property
    def taps(self) -> tuple[Tap, ...]:
        """The layer."""
        return (self.tap,)

    def _groups(self, context: Context) -> int:
        channels = context.channels(self.tap)
        return channels if self.most is None else min(channels, self.most)


@dataclass(frozen=True)
class ChannelsAsMasks(_ChannelSampler):
    """Every channel as a mask on the image, and one mask that keeps nothing."""

    def masks(self, item: StreamInput, context: Context) -> Masks:
        """Channels, or the sums of those that light up together."""
        activation = activation_of(item, self.tap, context).activation
        groups: Groups = grouped(activation, self.most)
        sums = group_sums(activation, groups)
        return ActivationMasks(sums, groups, self.tap, context, context.shape)

    def expected(self, context: Context) -> int:
        """One per channel, and one."""
        return self._groups(context) + 1


@dataclass(frozen=True)
class ChannelsOff(_ChannelSampler):
    """Every channel replaced alone.

    Attributes:
        level: What it becomes.
    """

    level: Level = 0.0

    def masks(self, item: StreamInput, context: Context) -> Masks:
        """One per channel or group."""
        tapped_values = activation_of(item, self.tap, context)
        activation, last = tapped_values.activation, self._last(tapped_values.calls, context)
        groups, flat = grouped(activation, self.most), activation.flatten(1)
        levels = (
            flat.mean(dim=1) if self.level == "mean" else torch.full_like(flat[:, 0], self.level)
        )
        return LayerChannels(
            self.tap, last, groups, levels, activation, tapped_values.placed, context, context.shape
        )

    def _last(self, calls: int, context: Context) -> Tap:
        """The call whose activation was caught, where a layer is used more than once."""
        if calls == 1:
            return self.tap
        if context.layout is not None:
            raise ModelError(
                f"layer {self.tap.module!r} is called {calls} times in every window; its channels "
                "can be replaced in networks without windows only"
            )
        return (
            self.tap
            if self.tap.call >= 0
            else replace(self.tap, path=f"{self.tap.path}#{calls - 1}")
        )

    def expected(self, context: Context) -> int:
        """One per channel or group."""
        return self._groups(context)


@dataclass(frozen=True, eq=False)
class Caught:
    """What a layer computes for an image.

    Attributes:
        activation: ``(K, *cells)``; ``(K, windows, *cells)`` in windows.
        calls: How often the layer is called for the image, or for a window.
        placed: Whether all of it has a place in the image; class tokens have none.
    """

    activation: Tensor
    calls: int
    placed: bool


def activation_of(item: StreamInput, tap: Tap, context: Context) -> Caught:
    """Catches what a layer computes for an image, in one forward."""
    model, layout = context.model, context.layout
    parts, values = [], 0
    with torch.no_grad(), model.at_rest():
        if layout is None:
            with tapping(model.network, (tap,)) as tapped:
                model(item.image[None])
            parts, values = [context.arranged(tap, tapped[tap]).detach()], tapped[tap].numel()
            activation = parts[0][0]
        else:
            padded = layout.pad(item.image)
            for positions in layout.batches(model.window.batch if model.window else 1):
                with tapping(model.network, (tap,)) as tapped:
                    model.dense(layout.cut(padded, positions))
                parts.append(context.arranged(tap, tapped[tap]).detach())
                values += tapped[tap].numel()
            activation = torch.cat(parts).transpose(0, 1)
    return Caught(activation, tapped.calls(tap), activation.numel() == values)
