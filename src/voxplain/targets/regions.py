"""Targets on regions of a dense output: predicted, thresholded, given, or in error."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from scipy import ndimage
from skimage.filters import threshold_otsu
from torch import Tensor

from voxplain.errors import TargetError
from voxplain.io import read_mask
from voxplain.targets.base import Target, UnperturbedOutput, check_label, class_weights, classes_in
from voxplain.targets.field import Link, Term, WeightField, predicted_mask


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
        return _stated_ignore(handler(self))

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
                _mask_on_output(self.mask, self.value, unperturbed, self.ignore),
                "of the given mask",
            )
        elif self.component is not None:
            mask = self._components(unperturbed)
            words = f"of its predicted component number {self.component} by size"
        elif self.box is not None:
            mask, words = _box(self.box, unperturbed.output), f"of the box {self.box}"
        else:
            box = tuple((index, index + 1) for index in self.voxel or ())
            mask, words = _box(box, unperturbed.output), f"at {self.voxel}"
        return self._over(unperturbed, self.label, mask, words)

    def _components(self, unperturbed: UnperturbedOutput) -> Tensor:
        predicted = self._predicted(unperturbed, self.label)
        return torch.stack([_component(mask, self.component or 1, self) for mask in predicted])


class ErrorRegion(_Dense):
    """Scores of a class summed over its false positives or false negatives.

    Attributes:
        reference: The true mask: array on the output grid, or file on the grid of the scan.
        value: The label of the reference that is the class; every non-zero label if None.
        error: ``fp`` for voxels that are predicted and not true, ``fn`` for true ones that are not
            predicted.
        ignore: The label of the reference whose voxels are neither.
    """

    files: ClassVar[tuple[str, ...]] = ("reference",)

    @model_serializer(mode="wrap")
    def _without_unstated(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _stated_ignore(handler(self))

    kind: Literal["error_region"] = "error_region"
    label: int
    reference: Any
    value: int | None = None
    error: Literal["fp", "fn"] = "fp"
    ignore: int | None = None

    def _field(self, unperturbed: UnperturbedOutput) -> WeightField:
        self._check(unperturbed, self.label)
        predicted = self._predicted(unperturbed, self.label)
        truth = _mask_on_output(self.reference, self.value, unperturbed, self.ignore)
        if self.ignore is not None:
            labels = _labels(self.reference, unperturbed, self.ignore)
            predicted = predicted & ~_on_output(labels == self.ignore, unperturbed)
        mask = predicted & ~truth if self.error == "fp" else truth & ~predicted
        return self._over(unperturbed, self.label, mask, self._in_words)

    def why_empty(self, unperturbed: UnperturbedOutput, row: int) -> str:
        """A sentence that there is no such error."""
        del row
        return f"class {self.label} has no {self._in_words} {unperturbed.elements[:-1]} to explain"

    @property
    def _in_words(self) -> str:
        return "falsely predicted" if self.error == "fp" else "missed"


def _mask_on_output(
    mask: Any, value: int | None, unperturbed: UnperturbedOutput, ignore: int | None
) -> Tensor:
    labels = _labels(mask, unperturbed, ignore)
    inside = labels != 0 if value is None else labels == value
    if ignore is not None:
        inside = inside & (labels != ignore)
    return _on_output(inside, unperturbed)


def _on_output(inside: Tensor, unperturbed: UnperturbedOutput) -> Tensor:
    shape = unperturbed.output.shape[2:]
    if inside.ndim == len(shape):
        inside = inside.expand(len(unperturbed.output), *inside.shape)
    if len(inside) != len(unperturbed.output):
        raise TargetError(f"{len(inside)} masks for {len(unperturbed.output)} images")
    if inside.shape[1:] == shape:
        return inside.to(unperturbed.output.device)
    if inside.shape[1:] != unperturbed.input_shape:
        raise TargetError(
            f"a mask of shape {tuple(inside.shape[1:])} fits neither the output {tuple(shape)} "
            f"nor the input {tuple(unperturbed.input_shape)}"
        )
    place = unperturbed.known_place("a mask on the grid of the image")
    return place.on_output(inside).to(unperturbed.output.device)


def _labels(mask: Any, unperturbed: UnperturbedOutput, ignore: int | None) -> Tensor:
    if not isinstance(mask, (str, Path)):
        is_tensor = isinstance(mask, Tensor)
        return mask.as_subclass(Tensor) if is_tensor else torch.as_tensor(np.asarray(mask))
    if unperturbed.image is None:
        raise TargetError("a mask file needs an image on its grid; pass an Image, or an array")
    return unperturbed.image.project(read_mask(mask, unperturbed.image.source_grid, ignore=ignore))


def _stated_ignore(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters without an ``ignore`` of None, so that seeds and keys of targets stay the same."""
    return {name: value for name, value in parameters.items() if name != "ignore" or value}


def _box(box: tuple[tuple[int, int], ...], output: Tensor) -> Tensor:
    shape = output.shape[2:]
    inside = len(box) == len(shape) and all(
        0 <= start < stop <= size for (start, stop), size in zip(box, shape, strict=False)
    )
    if not inside:
        raise TargetError(f"{box} does not lie inside an output of shape {tuple(shape)}")
    mask = torch.zeros(len(output), *shape, dtype=torch.bool, device=output.device)
    mask[(slice(None), *(slice(start, stop) for start, stop in box))] = True
    return mask


def _component(mask: Tensor, rank: int, target: Region) -> Tensor:
    labels, count = ndimage.label(mask.cpu().numpy(), structure=np.ones((3,) * mask.ndim))
    if rank > count:
        where = "nowhere" if count == 0 else f"as {count} connected components"
        raise TargetError(f"class {target.label} is predicted {where}; there is no number {rank}")
    sizes = np.bincount(labels.ravel())[1:]
    label = np.argsort(-sizes, kind="stable")[rank - 1] + 1
    return torch.from_numpy(labels == label).to(mask.device)
