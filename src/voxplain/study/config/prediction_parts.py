"""Targets for each part of a prediction: each lesion, each error, each class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import model_validator

from voxplain.errors import ConfigError, TargetError, nearest
from voxplain.records.candidates import Candidates
from voxplain.study.config.for_each import ForEach
from voxplain.targets import (
    ClassScore,
    ErrorRegion,
    Label,
    Pixelwise,
    Region,
    Target,
    UnperturbedOutput,
    Volume,
)
from voxplain.targets.field import SEPARATE, predicted_mask


class EachComponent(ForEach):
    """The scores of a class over each connected component of its prediction, such as each lesion.

    Attributes:
        label: The class.
        link: As of a region.
    """

    for_each: Literal["component"]
    kind: Literal["region"] = "region"
    label: int
    link: Literal["score", "probability", "log_odds"] = "score"

    def candidates(self, unperturbed: UnperturbedOutput) -> Candidates:
        """The predicted components."""
        region = Region(label=self.label, component=1, **_bound_by(self))
        return _sized(enumerate(region.component_sizes(unperturbed), start=1), unperturbed)

    def target(self, number: int) -> Region:
        """The region of one component."""
        return Region(label=self.label, component=number, link=self.link, **_bound_by(self))

    @property
    def in_words(self) -> str:
        """What they are."""
        return f"predicted components of class {self.label}"


class EachError(ForEach):
    """The scores of a class over each connected component of its errors.

    Attributes:
        label: The class.
        reference: As of an error region.
        value: As of an error region.
        error: ``fp`` for what is falsely predicted, ``fn`` for what is missed.
        ignore: As of an error region.
        link: As of an error region.
    """

    files: ClassVar[tuple[str, ...]] = ("reference",)

    for_each: Literal["component"]
    kind: Literal["error_region"]
    label: int
    reference: str | Path = "reference"
    value: int | None = None
    error: Literal["fp", "fn"] = "fp"
    ignore: int | None = None
    link: Literal["score", "probability", "log_odds"] = "score"

    def candidates(self, unperturbed: UnperturbedOutput) -> Candidates:
        """The components of the errors."""
        sizes = self.target(1).component_sizes(unperturbed)
        return _sized(enumerate(sizes, start=1), unperturbed)

    def target(self, number: int) -> ErrorRegion:
        """The region of one component."""
        return ErrorRegion(
            label=self.label,
            reference=str(self.reference),
            value=self.value,
            error=self.error,
            ignore=self.ignore,
            component=number,
            link=self.link,
            **_bound_by(self),
        )

    @property
    def in_words(self) -> str:
        """What they are."""
        how = "falsely predicted" if self.error == "fp" else "missed"
        return f"{how} components of class {self.label}"


class EachClass(ForEach):
    """A target for each class of the output, or for each that is predicted, but the background.

    Class 0 is the background where a dense output has several classes of which one holds. Of a
    network with one output, class 1 is explained, or the one that is predicted.

    Attributes:
        kind: Of each target.
        link: As of ``class_score`` and ``pixelwise``.
    """

    for_each: Literal["class", "predicted_class"]
    kind: Literal["label", "class_score", "pixelwise", "volume"] = "label"
    link: Literal["score", "probability", "log_odds"] | None = None

    @model_validator(mode="after")
    def _has_link(self) -> EachClass:
        if self.link is not None and self.kind in ("label", "volume"):
            raise ValueError(f"link is for class_score and pixelwise, not for {self.kind}")
        return self

    def candidates(self, unperturbed: UnperturbedOutput) -> Candidates:
        """The classes, and why some cannot be explained."""
        sizes = _classes(self, unperturbed)
        if self.for_each == "predicted_class":
            sizes = {label: size for label, size in sizes.items() if size > 0}
        refused = {label: _refusal(self.target(label), unperturbed) for label in sizes}
        refused = {label: reason for label, reason in refused.items() if reason}
        kept = ((label, size) for label, size in sizes.items() if label not in refused)
        return _sized(kept, unperturbed, refused)

    def target(self, number: int) -> Target:
        """The target of one class."""
        link: dict[str, Any] = {} if self.link is None else {"link": self.link}
        return _CLASS_TARGETS[self.kind](label=number, **link, **_bound_by(self))

    @property
    def in_words(self) -> str:
        """What they are."""
        return "classes" if self.for_each == "class" else "predicted classes"

    def _ordered(self, numbers: list[int]) -> list[int]:
        return sorted(numbers)


AnyForEach = EachComponent | EachError | EachClass

_CLASS_TARGETS: dict[str, type[Label | ClassScore | Pixelwise | Volume]] = {
    "label": Label,
    "class_score": ClassScore,
    "pixelwise": Pixelwise,
    "volume": Volume,
}
_WORDS = ("component", "class", "predicted_class")


def parse_for_each(written: Mapping[str, Any]) -> AnyForEach:
    """The targets that a mapping with ``for_each`` stands for.

    Raises:
        ConfigError: If it is for each of something unknown.
        ValidationError: If a parameter does not fit.
    """
    each = written["for_each"]
    if each == "component" and written.get("kind") == "error_region":
        return EachError.model_validate(written)
    if each == "component":
        return EachComponent.model_validate(written)
    if each in ("class", "predicted_class"):
        return EachClass.model_validate(written)
    raise ConfigError(f"unknown for_each {each!r}; {nearest(str(each), _WORDS)}")


def _bound_by(each: ForEach) -> dict[str, Any]:
    return {"activation": each.activation, "threshold": each.threshold}


def _classes(each: EachClass, unperturbed: UnperturbedOutput) -> dict[int, int]:
    """Positions of every class but the background, the largest first.

    Of a classifier a class that is predicted has 1 position, and of equal ones the class with the
    largest score comes first.
    """
    output, count = unperturbed.output, unperturbed.output.shape[1]
    labels = [*range(count)]
    if each.for_each == "class" and count > 1 and not unperturbed.is_dense:
        return dict.fromkeys(sorted(labels, key=lambda label: -float(output[0, label])), 1)
    activation = unperturbed.activation(each.activation)
    if count == 1:
        labels = [1] if unperturbed.is_dense or each.for_each == "class" else [0, 1]
    elif unperturbed.is_dense and activation not in SEPARATE:
        labels = labels[1:]
    masks = {label: predicted_mask(output, label, activation, each.threshold) for label in labels}
    sizes = {label: int(mask[0].sum()) for label, mask in masks.items()}
    scores = output[0].flatten(1).sum(1) if unperturbed.is_dense else output[0]
    score = {label: float(scores[label if count > 1 else 0]) for label in labels}
    order = sorted(labels, key=lambda label: (-sizes[label], -score[label], label))
    return {label: sizes[label] for label in order}


def _refusal(target: Target, unperturbed: UnperturbedOutput) -> str:
    """Why a target cannot be explained; empty if it can."""
    try:
        with torch.no_grad():
            target.bind(unperturbed)
    except TargetError as error:
        return str(error)
    return ""


def _sized(
    sizes: Iterable[tuple[int, int]],
    unperturbed: UnperturbedOutput,
    refused: Mapping[int, str] | None = None,
) -> Candidates:
    volume = unperturbed.voxel_volume
    if volume is not None and unperturbed.is_dense:
        place = unperturbed.place
        volume = None if place is None else volume * place.voxels_per_cell
    return Candidates(
        sizes=dict(sizes),
        refused=dict(refused or {}),
        volume=volume,
        axes=unperturbed.output.ndim - 2,
    )
