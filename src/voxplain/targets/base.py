"""What every target has: a sign convention, a binding, and what it says of itself."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from voxplain.errors import TargetError
from voxplain.image import Image
from voxplain.targets.field import WeightField
from voxplain.targets.links import Activation, predicted_mask, probabilities, settled


@dataclass(frozen=True, eq=False)
class UnperturbedOutput:
    """The one look a target gets at the unperturbed images.

    Attributes:
        output: ``(B, K, *spatial)`` or ``(B, K)``.
        image: The image, where the batch is one image with a grid.
        input_shape: Spatial shape of the network's input.
        voxel_volume: Of the input grid in mm³ (mm² in 2-D), or None where unknown.
        activations: Of the tapped layers, by path.
        classes: Class names, where they are known.
    """

    output: Tensor
    image: Image | None = None
    input_shape: tuple[int, ...] = ()
    voxel_volume: float | None = None
    activations: Mapping[str, Tensor] = field(default_factory=dict)
    classes: tuple[str, ...] = ()

    @property
    def is_dense(self) -> bool:
        """Whether the output has spatial axes."""
        return self.output.ndim > 2

    @property
    def elements(self) -> str:
        """What positions of the output are called."""
        return "pixels" if self.output.ndim == 4 else "voxels"

    def class_name(self, label: int) -> str:
        """``"class 2"``, or ``"class 2 (white matter)"``."""
        return f"class {label}" + (f" ({self.classes[label]})" if label < len(self.classes) else "")


class Target(BaseModel, ABC):
    """One number per image: a weight field on the output of the network.

    Attributes:
        signed_for: ``predicted`` explains -S for images on the other side of a one-logit
            classifier, so that positive always speaks for what was predicted.
        follow: Bind again at each perturbed input instead of keeping the field of the
            unperturbed one (the published formula read literally; gradients stay those of a
            fixed field).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    files: ClassVar[tuple[str, ...]] = ()  # fields that may name a file

    kind: str
    signed_for: Literal["class", "predicted"] = "class"
    follow: bool = False
    activation: Activation = "auto"
    threshold: float = Field(default=0.5, gt=0, lt=1)

    def bind(self, output: Tensor | UnperturbedOutput, image: Image | None = None) -> WeightField:
        """Looks once at the unperturbed output and fixes the weight field.

        Args:
            output: ``(B, K)`` or ``(B, K, *spatial)``.
            image: The image behind a batch of one: masks are brought to its grid, volumes are
                stated in its units.

        Raises:
            TargetError: If the output holds NaN, the class is absent, a region is empty, or the
                score cannot depend on the image.
        """
        seen = output if isinstance(output, UnperturbedOutput) else _seen(output, image)
        _check_finite(seen.output)
        self._check_activation(seen)
        bound = self.rebind(seen)
        self._check_not_empty(bound, seen)
        scores = bound.score(seen.activations[bound.layer] if bound.layer else seen.output)
        if not torch.isfinite(scores).all():
            raise TargetError(f"the score of {self} is {scores.tolist()}; it must be finite")
        return bound

    def rebind(self, seen: UnperturbedOutput) -> WeightField:
        """The field without checks, which may be empty: what ``follow`` uses at each point."""
        bound = self._field(seen)
        return _towards_prediction(bound, seen, self) if self.signed_for == "predicted" else bound

    @abstractmethod
    def _field(self, seen: UnperturbedOutput) -> WeightField:
        """The weight field for these images, before signs and checks."""

    def why_empty(self, seen: UnperturbedOutput, row: int) -> str:
        """Why nothing is selected in one image, and what would be."""
        del seen, row
        return f"{self} selects nothing, so its score is 0 whatever the image"

    def _check_not_empty(self, bound: WeightField, seen: UnperturbedOutput) -> None:
        for row in range(len(bound)):
            if bound.size(row) == 0:
                where = f"image {row}: " if len(bound) > 1 else ""
                raise TargetError(where + self.why_empty(seen, row))

    def _check_activation(self, seen: UnperturbedOutput) -> None:
        if self.activation == "softmax" and seen.output.shape[1] == 1:
            raise TargetError(
                "softmax over one channel is 1 everywhere, so nothing can be explained; a network "
                "with one output channel takes activation: sigmoid"
            )

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers that must be tapped for this target."""
        return ()

    @property
    def slug(self) -> str:
        """A short name for files: the kind, the label, and what else is stated."""
        stated = self._stated()
        parts = [self.kind, _short(stated.pop("label", ""))]
        parts += [name + _short(value) for name, value in stated.items()]
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
    """A parameter in words: arrays by their shape, and no path, as these words are written."""
    if _is_array(value):
        return f"array {tuple(value.shape)}"
    text = str(value)
    return text if isinstance(value, Target) or not _PATH.search(text) else "file"


def _short(value: Any) -> str:
    content = np.asarray(value).tobytes() if _is_array(value) else str(value).encode()
    text = str(value)
    plain = not _is_array(value) and len(text) <= 12 and not _PATH.search(text)
    return text if plain else hashlib.sha256(content).hexdigest()[:8]


def _seen(output: Tensor, image: Image | None) -> UnperturbedOutput:
    in_mm = image is not None and image.grid.unit == "mm"
    return UnperturbedOutput(
        output=output,
        image=image,
        input_shape=image.grid.shape if image else tuple(output.shape[2:]),
        voxel_volume=image.grid.voxel_volume if image and in_mm else None,
    )


def check_label(seen: UnperturbedOutput, label: int) -> None:
    """Refuses a class the output does not have.

    Raises:
        TargetError: With the classes there are.
    """
    classes = max(2, seen.output.shape[1])
    if not 0 <= label < classes:
        one = " (one logit: 1 is its side, 0 the other side)" if seen.output.shape[1] == 1 else ""
        raise TargetError(f"class {label} does not exist; the output has 0 to {classes - 1}{one}")


def class_weights(output: Tensor, label: int, mask: Tensor) -> Tensor:
    """Weights ``(B, K, *spatial)`` of a class where a mask ``(B, *spatial)`` holds.

    Class 0 of a one-channel output is minus its logit.
    """
    weights = torch.zeros_like(output)
    if output.shape[1] == 1:
        weights[:, 0] = mask if label == 1 else -mask.to(output.dtype)
    else:
        weights[:, label] = mask.to(output.dtype)
    return weights


def probability_of(output: Tensor, label: int, activation: Activation) -> Tensor:
    """Probability ``(B, *spatial)`` of a class, with the two classes of a one-channel output."""
    chances = probabilities(output, activation)
    if output.shape[1] > 1:
        return chances[:, label]
    return chances[:, 0] if label == 1 else 1 - chances[:, 0]


def classes_in(output: Tensor, target: Target) -> dict[int, int]:
    """Predicted classes of an output ``(1, K, *spatial)`` and how many positions each has."""
    found = {}
    for label in range(max(2, output.shape[1])):
        mask = predicted_mask(output, label, target.activation, target.threshold)
        if count := int(mask.sum()):
            found[label] = count
    return found


def _check_finite(output: Tensor) -> None:
    if not torch.isfinite(output).all():
        bad = int((~torch.isfinite(output)).sum())
        raise TargetError(
            f"the output of the network holds {bad} NaN or infinite values of {output.numel()}; "
            "check the weights and the intensity range of the image"
        )


def _towards_prediction(bound: WeightField, seen: UnperturbedOutput, target: Target) -> WeightField:
    if seen.is_dense or seen.output.shape[1] != 1:
        raise TargetError("signed_for='predicted' is for classifiers with one logit")
    activation = settled(target.activation, 1)
    predicted = probabilities(seen.output, activation)[:, 0] > target.threshold
    other_side = predicted.new_tensor([label == 0 for label in bound.labels])
    agrees = predicted ^ other_side if bound.labels else predicted
    signs = torch.where(agrees, 1.0, -1.0).to(bound.offset)
    words = tuple(
        text if same else f"minus {text}, as the other side is predicted"
        for text, same in zip(bound.in_words, agrees.tolist(), strict=True)
    )
    return replace(bound.scaled(signs), in_words=words)
