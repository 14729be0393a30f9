"""Targets on regions of a dense output: predicted, thresholded, given, or in error."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from skimage.filters import threshold_otsu
from torch import Tensor

from voxplain.errors import TargetError
from voxplain.targets.base import (
    Target,
    UnperturbedOutput,
    check_label,
    class_weights,
    classes_in,
    short,
)
from voxplain.targets.components import component, component_sizes
from voxplain.targets.field import Link, Term, WeightField, predicted_mask
from voxplain.targets.given_masks import box_of, labels_of, mask_on_output, on_output


class _Dense(Target):
    """A target that sums the scores of one class over a region of a dense output."""

    link: Literal["score", "probability", "log_odds"] = "score"

    def _over(
        self, unperturbed: UnperturbedOutput, label: int, mask: Tensor, words: str
    ) -> WeightField:
        link: Link = "identity" if self.link == "score" else self.link
        activation = self.activation
        if link != "identity":
            activation = unperturbed.activation(activation)
        sizes = mask.flatten(1).sum(dim=1)
        is_complement = link == "probability" and unperturbed.output.shape[1] == 1 and label == 0
        quantity = {"score": "scores", "probability": "probabilities", "log_odds": "log-odds"}
        return WeightField(
            terms=(Term(class_weights(unperturbed.output, label, mask), link, activation),),
            offset=(sizes if is_complement else torch.zeros_like(sizes)).to(
                unperturbed.output.dtype
            ),
            in_words=tuple(
                f"the sum of the {quantity[self.link]} of {unperturbed.class_name(label)} over the "
                f"{int(size)} {unperturbed.elements} {words}"
                for size in sizes
            ),
            labels=(label,) * len(unperturbed.output),
        )

    def _predicted(self, unperturbed: UnperturbedOutput, label: int) -> Tensor:
        """Where a class is predicted, ``(B, *spatial)`` bool."""
        activation = unperturbed.activation(self.activation)
        return predicted_mask(unperturbed.output, label, activation, self.threshold)

    def _numbered(self, name: str, number: int, label: int, *known: str) -> str:
        """``1_component-2`` for files, and the parameters that are stated and not ``known``."""
        stated = {key: value for key, value in self._stated().items() if key not in known}
        rest = "".join(f"_{key}-{short(value)}" for key, value in stated.items())
        return re.sub(r"[^A-Za-z0-9_.-]+", "", f"{label}_{name}-{number}{rest}")

    def _check(self, unperturbed: UnperturbedOutput, label: int) -> None:
        if not unperturbed.is_dense:
            raise TargetError(
                f"{self.kind} needs a dense output, and this network gives "
                f"{unperturbed.output.shape[1]} class scores; use class_score"
            )
        check_label(unperturbed, label)


class Pixelwise(_Dense):
    """Pixel-wise multi-class: scores of a class summed where that class is predicted.

    TorchEsegeta, equations 15 and 16.
    """

    kind: Literal["pixelwise"] = "pixelwise"
    label: int

    def _field(self, unperturbed: UnperturbedOutput) -> WeightField:
        self._check(unperturbed, self.label)
        mask = self._predicted(unperturbed, self.label)
        return self._over(unperturbed, self.label, mask, "where it is predicted")

    def why_empty(self, unperturbed: UnperturbedOutput, row: int) -> str:
        """A sentence with the classes that are predicted instead."""
        present = classes_in(unperturbed, row, self)
        listed = ", ".join(
            f"{label} ({count} {unperturbed.elements})" for label, count in present.items()
        )
        return f"class {self.label} is predicted nowhere; predicted are: {listed}"

    @property
    def slug(self) -> str:
        """The label alone for the plain sum of scores."""
        plain = self.model_dump(exclude_defaults=True).keys() <= {"kind", "label"}
        return str(self.label) if plain else super().slug


class Threshold(_Dense):
    """Scores summed where the min-max normalized output exceeds its Otsu threshold.

    TorchEsegeta, equations 17 and 18, with output, threshold and mask on one grid and one threshold
    per image.

    Attributes:
        label: The output channel that is thresholded. Of a one-channel output class 0 is the
            complement: minus the score, where the score is not above the threshold.
        foreground: Whether the region is above the threshold, or not above it.
    """

    kind: Literal["threshold"] = "threshold"
    label: int = 1
    foreground: bool = True

    def _field(self, unperturbed: UnperturbedOutput) -> WeightField:
        self._check(unperturbed, self.label)
        channel = 0 if unperturbed.output.shape[1] == 1 else self.label
        is_complement = unperturbed.output.shape[1] == 1 and self.label == 0
        above = self.foreground != is_complement
        masks = [self._mask(values, above) for values in unperturbed.output[:, channel]]
        side = "above" if above else "not above"
        words = f"{side} the Otsu threshold" + (" of class 1" if is_complement else "")
        return self._over(unperturbed, self.label, torch.stack(masks), words)

    def _mask(self, values: Tensor, is_above: bool) -> Tensor:
        span = values.amax() - values.amin()
        if span == 0:
            raise TargetError("the output is constant, so it has no Otsu threshold")
        normalized = (values - values.amin()) / span
        threshold = float(threshold_otsu(normalized.double().cpu().numpy()))  # type: ignore[no-untyped-call]
        above = normalized > threshold
        return above if is_above else ~above


class Region(_Dense):
    """Scores of a class summed over one region: a mask, a box, a component or a voxel.

    Attributes:
        mask: Boolean or integer array on the output grid, or a mask file on the grid of the scan;
            non-zero is inside.
        value: The label of the mask that is inside; every non-zero label if None.
        box: ``(start, stop)`` per axis in voxels of the network's output.
        component: Rank by size of a connected component of the predicted class, 1 for the largest
            (such as one lesion).
        voxel: One position of the output.
        ignore: The label of the mask that is never inside.
    """

    files: ClassVar[tuple[str, ...]] = ("mask",)

    @model_serializer(mode="wrap")
    def _without_unstated(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(handler(self), "ignore")

    kind: Literal["region"] = "region"
    label: int
    mask: Any = None
    value: int | None = None
    box: tuple[tuple[int, int], ...] | None = None
    component: int | None = Field(default=None, ge=1)
    voxel: tuple[int, ...] | None = None
    ignore: int | None = None

    @model_validator(mode="after")
    def _one_region(self) -> Region:
        regions = (self.mask, self.box, self.component, self.voxel)
        if sum(region is not None for region in regions) != 1:
            raise ValueError("a region target takes exactly one of mask, box, component, voxel")
        return self

    def _field(self, unperturbed: UnperturbedOutput) -> WeightField:
        self._check(unperturbed, self.label)
        if self.mask is not None:
            mask, words = (
                mask_on_output(self.mask, self.value, unperturbed, self.ignore),
                "of the given mask",
            )
        elif self.component is not None:
            mask = self._components(unperturbed)
            words = f"of its predicted component number {self.component} by size"
        elif self.box is not None:
            mask, words = box_of(self.box, unperturbed.output), f"of the box {self.box}"
        else:
            box = tuple((index, index + 1) for index in self.voxel or ())
            mask, words = box_of(box, unperturbed.output), f"at {self.voxel}"
        return self._over(unperturbed, self.label, mask, words)

    def component_sizes(self, unperturbed: UnperturbedOutput) -> list[int]:
        """Positions of each component of the class in the first image, the largest first."""
        self._check(unperturbed, self.label)
        return component_sizes(self._predicted(unperturbed, self.label)[0])

    def _components(self, unperturbed: UnperturbedOutput) -> Tensor:
        predicted = self._predicted(unperturbed, self.label)
        return torch.stack([_one_component(mask, self.component or 1, self) for mask in predicted])

    @property
    def slug(self) -> str:
        """``1_component-2`` for a component."""
        if self.component is None:
            return super().slug
        return self._numbered("component", self.component, self.label, "label", "component")


class ErrorRegion(_Dense):
    """Scores of a class summed over its false positives or false negatives.

    Attributes:
        reference: The true mask: array on the output grid, or file on the grid of the scan.
        value: The label of the reference that is the class; every non-zero label if None.
        error: ``fp`` for voxels that are predicted and not true, ``fn`` for true ones that are not
            predicted.
        ignore: The label of the reference whose voxels are neither.
        component: Rank by size of one connected component of these voxels, 1 for the largest; all
            of them if None.
    """

    files: ClassVar[tuple[str, ...]] = ("reference",)

    @model_serializer(mode="wrap")
    def _without_unstated(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(handler(self), "ignore", "component")

    kind: Literal["error_region"] = "error_region"
    label: int
    reference: Any
    value: int | None = None
    error: Literal["fp", "fn"] = "fp"
    ignore: int | None = None
    component: int | None = Field(default=None, ge=1)

    def _field(self, unperturbed: UnperturbedOutput) -> WeightField:
        self._check(unperturbed, self.label)
        mask, words = self._errors(unperturbed), self.in_words
        if self.component is not None:
            mask = torch.stack([_one_component(each, self.component, self) for each in mask])
            words = f"of its {words} component number {self.component} by size"
        return self._over(unperturbed, self.label, mask, words)

    def component_sizes(self, unperturbed: UnperturbedOutput) -> list[int]:
        """Positions of each component of these errors in the first image, the largest first."""
        self._check(unperturbed, self.label)
        return component_sizes(self._errors(unperturbed)[0])

    def _errors(self, unperturbed: UnperturbedOutput) -> Tensor:
        """Where the prediction is wrong in this way, ``(B, *spatial)`` bool."""
        predicted = self._predicted(unperturbed, self.label)
        truth = mask_on_output(self.reference, self.value, unperturbed, self.ignore)
        if self.ignore is not None:
            labels = labels_of(self.reference, unperturbed, self.ignore)
            predicted = predicted & ~on_output(labels == self.ignore, unperturbed)
        return predicted & ~truth if self.error == "fp" else truth & ~predicted

    def why_empty(self, unperturbed: UnperturbedOutput, row: int) -> str:
        """A sentence that there is no such error."""
        del row
        return f"class {self.label} has no {self.in_words} {unperturbed.elements[:-1]} to explain"

    @property
    def slug(self) -> str:
        """``1_fp-2`` for a component."""
        if self.component is None:
            return super().slug
        known = ["label", "component", "error"]
        if isinstance(self.reference, str) and self.reference == "reference":  # of the case
            known.append("reference")
        return self._numbered(self.error, self.component, self.label, *known)

    @property
    def in_words(self) -> str:
        """What the voxels are."""
        return "falsely predicted" if self.error == "fp" else "missed"


def _without(parameters: dict[str, Any], *optional: str) -> dict[str, Any]:
    """Parameters without these where they are None: seeds and keys of targets stay the same."""
    return {name: value for name, value in parameters.items() if name not in optional or value}


def _one_component(mask: Tensor, number: int, target: Region | ErrorRegion) -> Tensor:
    try:
        return component(mask, number)
    except IndexError:
        count = len(component_sizes(mask))
        where = "nowhere" if count == 0 else f"as {count} connected components"
        how = "predicted" if isinstance(target, Region) else target.in_words
        raise TargetError(
            f"class {target.label} is {how} {where}; there is no number {number}"
        ) from None
