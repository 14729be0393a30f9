"""The base of targets: binding to an output, sign, checks, and descriptions in words."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from voxplain.errors import TargetError
from voxplain.image import Image
from voxplain.models.output_place import OutputPlace
from voxplain.targets.activations import Meaning, activation_for, meaning_of, remarks_on
from voxplain.targets.field import (
    Activation,
    WeightField,
    lies_in_unit_range,
    predicted_mask,
    probabilities,
    resolve_activation,
)


@dataclass(frozen=True, eq=False)
class UnperturbedOutput:
    """The output for unperturbed images, to which targets are bound.

    Attributes:
        output: ``(B, K, *spatial)`` or ``(B, K)``.
        image: The image, if the batch is one image with a grid.
        input_shape: Spatial shape of the network's input.
        voxel_volume: Volume of a voxel of the input in mm³ (mm² in 2-D), None where unknown.
        activations: Activations of the tapped layers, by path.
        classes: Class names, where known.
        place: Where the cells of a dense output lie in the input, None where unknown.
        squashed: Whether the network ends in a sigmoid, a softmax or the like; None if unknown.
        known_meaning: What the output is, where that was found on another one.
        stated: The activation that the network states, for targets that leave it open.
    """

    output: Tensor
    image: Image | None = None
    input_shape: tuple[int, ...] = ()
    voxel_volume: float | None = None
    activations: Mapping[str, Tensor] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    place: OutputPlace | None = None
    squashed: bool | None = None
    known_meaning: Meaning | None = None
    stated: Activation = "auto"

    @cached_property
    def meaning(self) -> Meaning:
        """Whether the output holds scores or probabilities."""
        if self.known_meaning is not None:
            return self.known_meaning
        if not lies_in_unit_range(self.output):
            return "scores"
        return meaning_of(self.output, self.squashed)

    def activation(self, asked: Activation) -> Activation:
        """What makes probabilities of the output, ``auto`` and ``none`` decided by its values.

        Raises:
            TargetError: If it is ``auto`` and what the output holds is unclear.
        """
        asked = self.stated if asked == "auto" else asked
        if self.meaning == "scores" and asked != "none":
            return resolve_activation(asked, self.output.shape[1])
        return activation_for(asked, self.meaning, self.output.shape[1])

    def is_unclear(self, asked: Activation) -> bool:
        """Whether it is not known if the output holds probabilities, and nobody says so."""
        return asked == self.stated == "auto" and self.meaning == "unclear"

    def known_place(self, need: str) -> OutputPlace:
        """Where the cells of the output lie in the input.

        Args:
            need: What needs it, for the error.

        Raises:
            TargetError: If this is unknown.
        """
        if self.place is None:
            raise TargetError(
                f"{need} needs the place of the output, of shape {tuple(self.output.shape[2:])}, "
                f"in the image, of shape {self.input_shape}, and the geometry of this network is "
                "unknown"
            )
        return self.place

    @property
    def is_dense(self) -> bool:
        """Whether the output has spatial axes."""
        return self.output.ndim > 2

    @property
    def elements(self) -> str:
        """Plural noun for positions of the output: pixels or voxels."""
        return "pixels" if self.output.ndim == 4 else "voxels"

    def class_name(self, label: int) -> str:
        """``"class 2"``, or ``"class 2 (white matter)"``."""
        return f"class {label}" + (f" ({self.classes[label]})" if label < len(self.classes) else "")


class Target(BaseModel, ABC):
    """One number per image: a weight field on the output of the network.

    Attributes:
        files: Names of the fields that may hold a file.
        signed_for: ``predicted`` explains -S where a one-logit classifier predicts class 0, so that
            positive values always support the prediction.
        follow: Whether the target is bound again at each perturbed input instead of keeping the
            field of the unperturbed one (the published formula read literally; gradients are still
            those of a fixed field).
        activation: What turns the output into probabilities: ``softmax`` over the channels, or
            ``sigmoid`` of each; ``softmax_inside`` or ``sigmoid_inside`` where the network ends in
            one, so that its outputs are probabilities already; ``none`` for one of these two,
            softmax where the channels sum to 1. ``auto`` finds out on the image: outputs in
            [0, 1] are probabilities where they sum to 1 over the classes, where a sigmoid or the
            like ends the network, or where several classes exceed 1/2 at one position; where none
            of this is known, it asks. All others are scores: under sigmoid for one channel, under
            softmax for more.
        threshold: Probability above which a class is predicted under sigmoid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    files: ClassVar[tuple[str, ...]] = ()

    kind: str
    signed_for: Literal["class", "predicted"] = "class"
    follow: bool = False
    activation: Activation = "auto"
    threshold: float = Field(default=0.5, gt=0, lt=1)

    def bind(self, output: Tensor | UnperturbedOutput, image: Image | None = None) -> WeightField:
        """The weight field of the unperturbed output.

        Args:
            output: ``(B, K)`` or ``(B, K, *spatial)``.
            image: The image of a batch of one, for the grid of masks and the unit of volumes.

        Raises:
            TargetError: If the output is not finite, the class is absent, a region is empty, or the
                score cannot depend on the image.
        """
        unperturbed = (
            output if isinstance(output, UnperturbedOutput) else _unperturbed(output, image)
        )
        _check_finite(unperturbed.output)
        self._check_activation(unperturbed)
        bound = self.rebind(unperturbed)
        self._check_not_empty(bound, unperturbed)
        scores = bound.score(
            unperturbed.activations[bound.layer] if bound.layer else unperturbed.output
        )
        if not torch.isfinite(scores).all():
            raise TargetError(f"the score of {self} is {scores.tolist()}; it must be finite")
        if bound.layer is not None:
            return bound
        return replace(bound, remarks=(*bound.remarks, *self._remarks_on(unperturbed)))

    def _remarks_on(self, unperturbed: UnperturbedOutput) -> Iterator[str]:
        """What readers have to know of the output."""
        if unperturbed.meaning != "scores":
            classes = unperturbed.output.shape[1]
            yield from remarks_on(self.activation, unperturbed.meaning, classes)
        if unperturbed.is_dense and unperturbed.place and not unperturbed.place.covers_all:
            yield f"the output of the network covers {unperturbed.place.in_words()}, and no others"

    def rebind(self, unperturbed: UnperturbedOutput) -> WeightField:
        """The weight field without checks, which may be empty; for ``follow``."""
        bound = self._field(unperturbed)
        return (
            _toward_prediction(bound, unperturbed, self)
            if self.signed_for == "predicted"
            else bound
        )

    @abstractmethod
    def _field(self, unperturbed: UnperturbedOutput) -> WeightField:
        """The weight field before signs and checks."""

    def why_empty(self, unperturbed: UnperturbedOutput, row: int) -> str:
        """The reason why no position of an image has a weight, for errors.

        Args:
            unperturbed: The output.
            row: Number of the image in the batch.
        """
        del unperturbed, row
        return f"{self} selects nothing, so its score is 0 whatever the image"

    def _check_not_empty(self, bound: WeightField, unperturbed: UnperturbedOutput) -> None:
        for row in range(len(bound)):
            if bound.size(row) == 0:
                where = f"image {row}: " if len(bound) > 1 else ""
                raise TargetError(where + self.why_empty(unperturbed, row))

    def _check_activation(self, unperturbed: UnperturbedOutput) -> None:
        if self.activation == "softmax" and unperturbed.output.shape[1] == 1:
            raise TargetError(
                "softmax over one channel is 1 everywhere, so nothing can be explained; a network "
                "with one output channel takes activation: sigmoid"
            )

    @property
    def layers(self) -> tuple[str, ...]:
        """Paths of the layers that must be tapped for this target."""
        return ()

    @property
    def slug(self) -> str:
        """A short name for files: the kind, the label, and parameters that are no default."""
        stated = self._stated()
        parts = [self.kind, short(stated.pop("label", ""))]
        parts += [name + short(value) for name, value in stated.items()]
        return re.sub(r"[^A-Za-z0-9]+", "", "".join(parts))[:60]

    def __str__(self) -> str:
        stated = (f"{name}={_shown(value)}" for name, value in self._stated().items())
        return f"{self.kind}({', '.join(stated)})"

    def _stated(self) -> dict[str, Any]:
        """The parameters that are not at their defaults."""
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        return {
            name: value
            for name, value in self
            if name != "kind" and (_is_array(value) or value != defaults[name])
        }


_PATH = re.compile(r"[\\/]")


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape")


def _shown(value: Any) -> str:
    """A parameter for descriptions: the shape of an array, and no path, as these are written."""
    if _is_array(value):
        return f"array {tuple(value.shape)}"
    text = str(value)
    return text if isinstance(value, Target) or not _PATH.search(text) else "file"


def short(value: Any) -> str:
    """A parameter for file names: as it is written, or eight digits of a hash."""
    content = np.asarray(value).tobytes() if _is_array(value) else str(value).encode()
    text = str(value)
    plain = not _is_array(value) and len(text) <= 12 and not _PATH.search(text)
    return text if plain else hashlib.sha256(content).hexdigest()[:8]


def _unperturbed(output: Tensor, image: Image | None) -> UnperturbedOutput:
    in_mm = image is not None and image.grid.unit == "mm"
    shape, cells = image.grid.shape if image else tuple(output.shape[2:]), tuple(output.shape[2:])
    return UnperturbedOutput(
        output=output,
        image=image,
        input_shape=shape,
        voxel_volume=image.grid.voxel_volume if image and in_mm else None,
        place=OutputPlace.same(cells) if cells and cells == shape else None,
    )


def check_label(unperturbed: UnperturbedOutput, label: int) -> None:
    """Refuses a class that the output does not have.

    Raises:
        TargetError: With the classes of the output.
    """
    channels = unperturbed.output.shape[1]
    classes = max(2, channels)
    if not 0 <= label < classes:
        note = " (one logit: 1 is its side, 0 the other side)" if channels == 1 else ""
        raise TargetError(f"class {label} does not exist; the output has 0 to {classes - 1}{note}")


def class_weights(output: Tensor, label: int, mask: Tensor) -> Tensor:
    """Weights ``(B, K, *spatial)``: 1 for a class inside a mask ``(B, *spatial)``, else 0.

    Class 0 of a one-channel output has weight -1 for its logit.
    """
    weights = torch.zeros_like(output)
    if output.shape[1] == 1:
        weights[:, 0] = mask if label == 1 else -mask.to(output.dtype)
    else:
        weights[:, label] = mask.to(output.dtype)
    return weights


def probability_of(output: Tensor, label: int, activation: Activation) -> Tensor:
    """Probability ``(B, *spatial)`` of a class; a one-channel output has classes 0 and 1."""
    probability = probabilities(output, activation)
    if output.shape[1] > 1:
        return probability[:, label]
    return probability[:, 0] if label == 1 else 1 - probability[:, 0]


def classes_in(unperturbed: UnperturbedOutput, row: int, target: Target) -> dict[int, int]:
    """Number of positions of each predicted class of an image."""
    output, activation = (
        unperturbed.output[row : row + 1],
        unperturbed.activation(target.activation),
    )
    counts = {}
    for label in range(max(2, output.shape[1])):
        mask = predicted_mask(output, label, activation, target.threshold)
        if count := int(mask.sum()):
            counts[label] = count
    return counts


def _check_finite(output: Tensor) -> None:
    if not torch.isfinite(output).all():
        not_finite = int((~torch.isfinite(output)).sum())
        raise TargetError(
            f"the output of the network holds {not_finite} NaN or infinite values of "
            f"{output.numel()}; check the weights and the intensity range of the image"
        )


def _toward_prediction(
    bound: WeightField, unperturbed: UnperturbedOutput, target: Target
) -> WeightField:
    if unperturbed.is_dense or unperturbed.output.shape[1] != 1:
        raise TargetError("signed_for='predicted' is for classifiers with one logit")
    activation = unperturbed.activation(target.activation)
    predicted = probabilities(unperturbed.output, activation)[:, 0] > target.threshold
    other_side = predicted.new_tensor([label == 0 for label in bound.labels])
    agrees = predicted ^ other_side if bound.labels else predicted
    signs = torch.where(agrees, 1.0, -1.0).to(bound.offset)
    words = tuple(
        text if same else f"minus {text}, as the other side is predicted"
        for text, same in zip(bound.in_words, agrees.tolist(), strict=True)
    )
    return replace(bound.scaled(signs), in_words=words)
