"""Targets without a region: class scores, volumes, units of a layer, and class numbers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from voxplain.errors import TargetError
from voxplain.targets.base import Target, UnperturbedOutput, check_label, class_weights
from voxplain.targets.field import Link, Term, WeightField, predicted_mask, probabilities
from voxplain.targets.regions import Pixelwise

SATURATED = 1e-6


class ClassScore(Target):
    """The score, probability or log-odds of a class, for classifiers ``(B, K)``.

    On a dense output it is summed over all positions. A one-logit network has class 1, with its
    logit, and class 0, with minus its logit.

    Attributes:
        label: The class, or ``predicted`` for the predicted class of each image.
        link: ``score`` for the raw output, or ``probability`` or ``log_odds`` of the class.
    """

    kind: Literal["class_score"] = "class_score"
    label: int | Literal["predicted"] = "predicted"
    link: Literal["score", "probability", "log_odds"] = "score"

    def _field(self, unperturbed: UnperturbedOutput) -> WeightField:
        output = unperturbed.output
        labels = self._labels(unperturbed)
        classes = [unperturbed.class_name(label) for label in labels]
        everywhere = torch.ones_like(output[:, 0], dtype=torch.bool)
        weights = torch.zeros_like(output)
        for row, label in enumerate(labels):
            weights[row] = class_weights(output[row : row + 1], label, everywhere[:1])[0]
        place = ", summed over all positions" if unperturbed.is_dense else ""
        link: Link = "identity" if self.link == "score" else self.link
        is_probability = output.shape[1] == 1 and self.link == "probability"
        positions = float(everywhere[0].numel())
        offset = [positions if is_probability and label == 0 else 0 for label in labels]
        activation = self.activation
        if link != "identity":
            activation = unperturbed.activation(activation)
        quantity = {"score": "score", "probability": "probability", "log_odds": "log-odds"}
        return WeightField(
            terms=(Term(weights, link, activation),),
            offset=output.new_tensor(offset),
            in_words=tuple(f"the {quantity[self.link]} of {each}{place}" for each in classes),
            remarks=self._remarks(unperturbed),
            labels=tuple(labels),
        )

    def _labels(self, unperturbed: UnperturbedOutput) -> list[int]:
        if self.label != "predicted":
            check_label(unperturbed, self.label)
            return [self.label] * len(unperturbed.output)
        if unperturbed.output.shape[1] == 1:
            activation = unperturbed.activation(self.activation)
            above = predicted_mask(unperturbed.output, 1, activation, self.threshold)
            return [int(image.float().mean() > 0.5) for image in above]
        summed = (
            unperturbed.output.flatten(2).sum(2) if unperturbed.is_dense else unperturbed.output
        )
        return [int(label) for label in summed.argmax(dim=1)]

    def _remarks(self, unperturbed: UnperturbedOutput) -> tuple[str, ...]:
        if self.link != "probability" or unperturbed.is_dense:
            return ()
        activation = unperturbed.activation(self.activation)
        probability = probabilities(unperturbed.output, activation)
        largest, smallest = probability.amax(dim=1), probability.amin(dim=1)
        if bool(((largest > 1 - SATURATED) | (smallest < SATURATED)).any()):
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

    def _field(self, unperturbed: UnperturbedOutput) -> WeightField:
        output = unperturbed.output
        if not unperturbed.is_dense:
            raise TargetError("a volume needs a dense output, and this network gives class scores")
        check_label(unperturbed, self.label)
        per_voxel, unit = volume_per_voxel(unperturbed)
        everywhere = torch.ones_like(output[:, 0], dtype=torch.bool)
        weights = class_weights(output, self.label, everywhere) * per_voxel
        is_complement = output.shape[1] == 1 and self.label == 0
        total = per_voxel * everywhere[0].numel() if is_complement else 0.0
        return WeightField(
            terms=(Term(weights, "probability", unperturbed.activation(self.activation)),),
            offset=torch.full_like(output[:, 0].flatten(1)[:, 0], total),
            in_words=(f"the predicted volume of {unperturbed.class_name(self.label)} in {unit}",)
            * len(output),
            labels=(self.label,) * len(output),
        )


def volume_per_voxel(unperturbed: UnperturbedOutput) -> tuple[float, str]:
    """Volume of one output voxel and its unit: mL, cm² in 2-D, or voxels of the output.

    Raises:
        TargetError: If the place of the output in the image is unknown.
    """
    if unperturbed.voxel_volume is None:
        return 1.0, unperturbed.elements
    ratio = unperturbed.known_place("a volume").voxels_per_cell
    rank = unperturbed.output.ndim - 2
    return unperturbed.voxel_volume * ratio / (
        1000 if rank == 3 else 100
    ), "mL" if rank == 3 else "cm²"


class Unit(Target):
    """A unit of a tapped layer.

    Attributes:
        layer: Path of the layer (``get_submodule``).
        channel: The channel, or ``strongest`` for that of the largest mean activation.
        position: ``all`` for the sum over positions, ``max`` for the maximum, or an index.
    """

    kind: Literal["unit"] = "unit"
    layer: str
    channel: int | Literal["strongest"]
    position: Literal["all", "max"] | tuple[int, ...] = "all"

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer of the unit."""
        return (self.layer,)

    def _field(self, unperturbed: UnperturbedOutput) -> WeightField:
        activation = unperturbed.activations[self.layer]
        weights = torch.zeros_like(activation)
        words = []
        for row, values in enumerate(activation):
            channel = self._channel(values)
            index, where = self._index(values[channel])
            weights[(row, channel, *index)] = 1
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

    def _index(self, values: Tensor) -> tuple[tuple[int | slice, ...], str]:
        if self.position == "all":
            return (slice(None),) * values.ndim, ", summed over positions" if values.ndim else ""
        if self.position == "max":
            index = tuple(map(int, torch.unravel_index(values.flatten().argmax(), values.shape)))
            return index, f" at its maximum {index}"
        position = self.position
        inside = len(position) == values.ndim and all(
            0 <= at < size for at, size in zip(position, values.shape, strict=False)
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

    def _field(self, unperturbed: UnperturbedOutput) -> WeightField:
        return self._target(unperturbed).rebind(unperturbed)

    def why_empty(self, unperturbed: UnperturbedOutput, row: int) -> str:
        """The reason of the target that the number stands for."""
        return self._target(unperturbed).why_empty(unperturbed, row)

    def _target(self, unperturbed: UnperturbedOutput) -> Target:
        kind: type[Pixelwise | ClassScore] = Pixelwise if unperturbed.is_dense else ClassScore
        return kind(label=self.label, activation=self.activation, threshold=self.threshold)

    @property
    def slug(self) -> str:
        """The label."""
        return str(self.label)
