"""Concepts of the images themselves: intensities, gradients, texture, background and borders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from scipy import ndimage
from torch import Tensor

from voxplain.concepts.bank.spec import (
    ConceptSpec,
    KnownConcepts,
    MaskOf,
    a_mask,
    signed_distance,
)
from voxplain.concepts.concept import Concept
from voxplain.engine.cohort import CohortCase
from voxplain.errors import InputError, nearest
from voxplain.extents import Length, measured

WINDOWS: Mapping[str, tuple[float, float]] = {
    "air": (-2000, -900),
    "lung": (-900, -500),
    "fat": (-150, -30),
    "soft tissue": (0, 100),
    "bone": (200, 4000),
}
"""Windows of CT in HU, from (included) to (excluded)."""


class BandConcepts(ConceptSpec):
    """Bands of the intensity of one channel, each with an equal share of the foreground.

    Attributes:
        channel: Name or number.
        parts: Number of bands.
    """

    kind: Literal["band"] = "band"
    channel: str | int
    parts: int = Field(default=4, ge=2, le=50)

    def concepts(self, known: KnownConcepts) -> tuple[Concept, ...]:
        """One concept per band, ``"flair band 1 of 4"`` being the darkest."""
        return tuple(
            a_mask(
                f"{self.channel} band {number + 1} of {self.parts}",
                _between_quantiles(self.channel, number / self.parts, (number + 1) / self.parts),
                f"band {number + 1} of {self.parts} of {self.channel} in the foreground",
                "intensity",
            )
            for number in range(self.parts)
        )


class HounsfieldConcepts(ConceptSpec):
    """Windows of CT, such as air, fat, soft tissue and bone.

    Attributes:
        channel: Name or number.
        windows: From (included) and to (excluded) in HU by name.
    """

    kind: Literal["hu"] = "hu"
    channel: str | int = 0
    windows: Mapping[str, tuple[float, float]] = WINDOWS

    def concepts(self, known: KnownConcepts) -> tuple[Concept, ...]:
        """One concept per window."""
        return tuple(
            a_mask(name, _in_window(self.channel, *ends), f"{ends[0]:g} to {ends[1]:g} HU", "HU")
            for name, ends in self.windows.items()
        )


class GradientConcepts(ConceptSpec):
    """Where the intensity of a channel changes most, and along which axis.

    Attributes:
        channel: Name or number.
        share: Of the foreground, the strongest gradients.
        orientation: Whether there is a concept per axis, too.
        rank: Number of axes, for the concepts per axis.
    """

    kind: Literal["gradient"] = "gradient"
    channel: str | int
    share: float = Field(default=0.1, gt=0, lt=1)
    orientation: bool = False
    rank: Literal[2, 3] = 3

    def concepts(self, known: KnownConcepts) -> tuple[Concept, ...]:
        """``"flair gradient"``, and ``"flair gradient along axis 0"`` for each axis."""
        words = f"the strongest {self.share:.0%} of the gradients of {self.channel}"
        axes: tuple[int | None, ...] = (None, *range(self.rank * self.orientation))
        return tuple(
            a_mask(
                f"{self.channel} gradient{'' if axis is None else f' along axis {axis}'}",
                _strong_gradient(self.channel, self.share, axis),
                words + ("" if axis is None else f", largest along axis {axis}"),
                "gradient",
            )
            for axis in axes
        )


class EntropyConcept(ConceptSpec):
    """Where the intensities of a channel are most mixed.

    Attributes:
        channel: Name or number.
        size: Side of the neighborhood in voxels.
        share: Of the foreground, the highest entropy of 16 gray values.
    """

    kind: Literal["entropy"] = "entropy"
    channel: str | int
    size: int = Field(default=5, ge=3, le=31)
    share: float = Field(default=0.1, gt=0, lt=1)

    def concepts(self, known: KnownConcepts) -> tuple[Concept, ...]:
        """``"flair entropy"``."""
        words = (
            f"the highest {self.share:.0%} of the entropy of {self.channel} in {self.size} voxels"
        )
        mask = _mixed(self.channel, self.size, self.share)
        return (a_mask(f"{self.channel} entropy", mask, words, "texture"),)


class ForegroundConcepts(ConceptSpec):
    """The foreground of an image (the brain in a skull-stripped scan) and its border.

    Attributes:
        width: Of the border, on both sides.
        name: Of the foreground; ``"<name> boundary"`` is its border.
    """

    kind: Literal["foreground"] = "foreground"
    width: Length = 1
    name: str = "foreground"

    def concepts(self, known: KnownConcepts) -> tuple[Concept, ...]:
        """Two concepts."""
        words = "where any channel is not constant background"
        return (
            a_mask(self.name, lambda case: case.foreground, words, "organ"),
            a_mask(
                f"{self.name} boundary", _near_foreground(self.width), f"border of {words}", "organ"
            ),
        )


class BackgroundConcept(ConceptSpec):
    """What is constant background in every channel."""

    kind: Literal["background"] = "background"

    def concepts(self, known: KnownConcepts) -> tuple[Concept, ...]:
        """``"background"``."""
        words = "constant background in every channel"
        return (a_mask("background", lambda case: ~case.foreground, words, "organ"),)


class EdgeConcept(ConceptSpec):
    """The edge of the field of view.

    Attributes:
        width: From the border of the image inward.
    """

    kind: Literal["edge"] = "edge"
    width: Length = 4

    def concepts(self, known: KnownConcepts) -> tuple[Concept, ...]:
        """``"edge of the image"``; along an axis of one voxel there is none."""
        words = f"at most {self.width} from the border of the image"
        return (a_mask("edge of the image", _at_edge(self.width), words, "place"),)


def channel_of(case: CohortCase, channel: str | int) -> Tensor:
    """One channel of an image, ``(*spatial)``.

    Raises:
        InputError: If the image does not have it.
    """
    names = case.image.channels
    index = names.index(channel) if channel in names else channel
    if not isinstance(index, int) or not -len(names) <= index < len(names):
        raise InputError(
            f"the image of case {case.id!r} has no channel {channel!r}; "
            f"{nearest(str(channel), names)}"
        )
    found: Tensor = case.image.data[index]
    return found.cpu()


def _between_quantiles(channel: str | int, low: float, high: float) -> MaskOf:
    def compute(case: CohortCase) -> Tensor:
        inside = case.foreground
        values = channel_of(case, channel).double()
        start, end = (float(np.quantile(values[inside].numpy(), share)) for share in (low, high))
        above = inside & (values >= start)
        return above & (values < end) if high < 1 else above

    return compute


def _in_window(channel: str | int, low: float, high: float) -> MaskOf:
    def compute(case: CohortCase) -> Tensor:
        values = channel_of(case, channel)
        names = case.image.channels
        index = names.index(channel) if channel in names else int(channel)
        slope, intercept = (case.image.intensity or ((1.0, 0.0),) * len(names))[index]
        hounsfield = values * slope + intercept
        return (hounsfield >= low) & (hounsfield < high)

    return compute


def _strong_gradient(channel: str | int, share: float, axis: int | None) -> MaskOf:
    def compute(case: CohortCase) -> Tensor | None:
        values = channel_of(case, channel).double().numpy()
        if axis is not None and axis >= values.ndim:
            return None
        steps = zip(range(values.ndim), case.image.grid.spacing, strict=True)
        parts = [
            np.gradient(values, step, axis=at) if values.shape[at] > 1 else np.zeros_like(values)
            for at, step in steps
        ]
        components = torch.from_numpy(np.stack(parts))
        strong = highest(components.square().sum(0).sqrt(), case.foreground, share)
        return strong if axis is None else strong & (components.abs().argmax(0) == axis)

    return compute


def _mixed(channel: str | int, size: int, share: float) -> MaskOf:
    def compute(case: CohortCase) -> Tensor:
        inside = case.foreground
        values = channel_of(case, channel).double().numpy()
        low, high = np.quantile(values[inside.numpy()], [0.005, 0.995])
        levels = np.clip((values - low) / max(high - low, 1e-12) * 16, 0, 15).astype(int)
        sizes = [min(size, side) for side in values.shape]
        shares = (ndimage.uniform_filter(1.0 * (levels == level), sizes) for level in range(16))
        entropy = sum(-p * np.log2(np.clip(p, 1e-12, None)) for p in shares)
        return highest(torch.from_numpy(np.asarray(entropy)), inside, share)

    return compute


def highest(values: Tensor, inside: Tensor, share: float) -> Tensor:
    """Where values are among the highest share of those inside; where these are equal, nowhere."""
    known = values[inside].numpy()
    threshold = float(np.quantile(known, 1 - share))
    return inside & (values >= threshold) & (values > float(known.min()))


def _near_foreground(width: int | str) -> MaskOf:
    def compute(case: CohortCase) -> Tensor | None:
        limit, spacing = measured(width, case.image.rank, case.image.grid.spacing_mm)
        distance = signed_distance(case.foreground, spacing)
        return None if distance is None else distance.abs() <= limit

    return compute


def _at_edge(width: int | str) -> MaskOf:
    def compute(case: CohortCase) -> Tensor:
        shape = case.image.grid.shape
        limit, spacing = measured(width, len(shape), case.image.grid.spacing_mm)
        edge = torch.zeros(shape, dtype=torch.bool)
        for axis, side in enumerate(shape):
            index = torch.arange(side)
            steps = torch.minimum(index, side - 1 - index) * spacing[axis]
            near = (steps < limit) if side > 1 else torch.zeros(1, dtype=torch.bool)
            edge |= near.view([-1 if each == axis else 1 for each in range(len(shape))])
        return edge

    return compute
