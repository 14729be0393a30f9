"""Class scores, volumes, units of a layer, and what a bare class number stands for."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from voxplain.errors import TargetError
from voxplain.targets.base import Target, UnperturbedOutput, check_label, class_weights
from voxplain.targets.field import Term, WeightField
from voxplain.targets.links import Link, predicted_mask, probabilities
from voxplain.targets.regions import Pixelwise

SATURATED = 1e-6


class ClassScore(Target):
    """The score, probability or log-odds of a class, for classifiers ``(B, K)``.

    On a dense output it is summed over all positions. A one-logit network has class 1 (its
    logit) and class 0 (minus its logit).

    Attributes:
        label: The class, or ``predicted`` for the one each image is given.
        link: ``score`` is the raw output, ``probability`` and ``log_odds`` follow from it.
    """

    kind: Literal["class_score"] = "class_score"
    label: int | Literal["predicted"] = "predicted"
    link: Literal["score", "probability", "log_odds"] = "score"

    def _field(self, seen: UnperturbedOutput) -> WeightField:
        output = seen.output
        labels = self._labels(seen)
        everywhere = torch.ones_like(output[:, 0], dtype=torch.bool)
        weights = torch.zeros_like(output)
        for row, label in enumerate(labels):
            weights[row] = class_weights(output[row : row + 1], label, everywhere[:1])[0]
        link: Link = "identity" if self.link == "score" else self.link
        flipped = output.shape[1] == 1 and self.link == "probability"
        offset = [float(everywhere[0].numel()) if flipped and label == 0 else 0 for label in labels]
        quantity = {"score": "score", "probability": "probability", "log_odds": "log-odds"}
        place = ", summed over all positions" if seen.is_dense else ""
        return WeightField(
            terms=(Term(weights, link, self.activation),),
            offset=output.new_tensor(offset),
            in_words=tuple(
                f"the {quantity[self.link]} of {seen.class_name(label)}{place}" for label in labels
            ),
            remarks=self._remarks(seen),
            labels=tuple(labels),
        )

    def _labels(self, seen: UnperturbedOutput) -> list[int]:
        if self.label != "predicted":
            check_label(seen, self.label)
            return [self.label] * len(seen.output)
        if seen.output.shape[1] == 1:
            above = predicted_mask(seen.output, 1, self.activation, self.threshold)
            return [int(image.float().mean() > 0.5) for image in above]
        summed = seen.output.flatten(2).sum(2) if seen.is_dense else seen.output
        return [int(label) for label in summed.argmax(dim=1)]

    def _remarks(self, seen: UnperturbedOutput) -> tuple[str, ...]:
        if self.link != "probability" or seen.is_dense:
            return ()
        chances = probabilities(seen.output, self.activation)
        best = chances.amax(dim=1)
        low = chances.amin(dim=1)
        if bool(((best > 1 - SATURATED) | (low < SATURATED)).any()):
            return (
                "the probability is saturated (within 1e-6 of 0 or 1), so its gradient is close "
                "to zero; link: score or log_odds explains the same prediction",
            )
        return ()

    @property
    def slug(self) -> str:
        """The label alone for the plain score."""
        plain = self.model_dump(exclude_defaults=True).keys() <= {"kind", "label"}
        return str(self.label) if plain else super().slug


class Volume(Target):
    """The predicted volume of a class in mL (cm² in 2-D): probabilities times the voxel volume.

    Where the physical size is unknown the unit is voxels.
    """

    kind: Literal["volume"] = "volume"
    label: int

    def _field(self, seen: UnperturbedOutput) -> WeightField:
        output = seen.output
        if not seen.is_dense:
            raise TargetError("a volume needs a dense output, and this network gives class scores")
        check_label(seen, self.label)
        per_voxel, unit = volume_per_voxel(seen)
        everywhere = torch.ones_like(output[:, 0], dtype=torch.bool)
        weights = class_weights(output, self.label, everywhere) * per_voxel
        flipped = output.shape[1] == 1 and self.label == 0
        whole = per_voxel * everywhere[0].numel() if flipped else 0.0
        return WeightField(
            terms=(Term(weights, "probability", self.activation),),
            offset=torch.full_like(output[:, 0].flatten(1)[:, 0], whole),
            in_words=(f"the predicted volume of {seen.class_name(self.label)} in {unit}",)
            * len(output),
            labels=(self.label,) * len(output),
        )


def volume_per_voxel(seen: UnperturbedOutput) -> tuple[float, str]:
    """Volume of one output voxel and its unit: mL, cm² in 2-D, or voxels."""
    if seen.voxel_volume is None:
        return 1.0, seen.elements
    coarser = 1.0
    for large, small in zip(seen.input_shape, seen.output.shape[2:], strict=True):
        coarser *= large / small
    rank = seen.output.ndim - 2
    return seen.voxel_volume * coarser / (1000 if rank == 3 else 100), "mL" if rank == 3 else "cm²"


class Unit(Target):
    """A unit of a tapped layer.

    Attributes:
        layer: Path of the layer (``get_submodule``).
        channel: The channel, or ``strongest`` for the one with the largest mean activation.
        position: ``all`` sums over positions, ``max`` takes the strongest one, or an index.
    """

    kind: Literal["unit"] = "unit"
    layer: str
    channel: int | Literal["strongest"]
    position: Literal["all", "max"] | tuple[int, ...] = "all"

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer of the unit."""
        return (self.layer,)

    def _field(self, seen: UnperturbedOutput) -> WeightField:
        activation = seen.activations[self.layer]
        weights = torch.zeros_like(activation)
        words = []
        for row, values in enumerate(activation):
            channel = self._channel(values)
            place, where = self._place(values[channel])
            weights[(row, channel, *place)] = 1
            words.append(f"channel {channel} of layer {self.layer}{where}")
        return WeightField(
            terms=(Term(weights),),
            offset=activation.new_zeros(len(activation)),
            in_words=tuple(words),
            layer=self.layer,
        )

    def _channel(self, values: Tensor) -> int:
        if self.channel == "strongest":
            return int(values.flatten(1).mean(dim=1).argmax())
        if not 0 <= self.channel < len(values):
            raise TargetError(
                f"layer {self.layer} has channels 0 to {len(values) - 1}, not {self.channel}"
            )
        return self.channel

    def _place(self, values: Tensor) -> tuple[tuple[int | slice, ...], str]:
        if self.position == "all":
            return (slice(None),) * values.ndim, ", summed over positions" if values.ndim else ""
        if self.position == "max":
            flat = int(values.flatten().argmax())
            index = tuple(
                int(part) for part in torch.unravel_index(torch.tensor(flat), values.shape)
            )
            return index, f" at its maximum {index}"
        position = self.position
        inside = len(position) == values.ndim and all(
            0 <= part < size for part, size in zip(position, values.shape, strict=False)
        )
        if not inside:
            raise TargetError(
                f"layer {self.layer} has positions {tuple(values.shape)}, not {position}"
            )
        return position, f" at {position}"


class Label(Target):
    """A class by its number: its score for ``(B, K)`` outputs, pixel-wise for dense ones."""

    kind: Literal["label"] = "label"
    label: int

    def _field(self, seen: UnperturbedOutput) -> WeightField:
        return self._meant(seen).rebind(seen)

    def why_empty(self, seen: UnperturbedOutput, row: int) -> str:
        """As the target it stands for says."""
        return self._meant(seen).why_empty(seen, row)

    def _meant(self, seen: UnperturbedOutput) -> Target:
        chosen: type[Pixelwise] | type[ClassScore] = Pixelwise if seen.is_dense else ClassScore
        return chosen(label=self.label, activation=self.activation, threshold=self.threshold)

    @property
    def slug(self) -> str:
        """The label."""
        return str(self.label)
