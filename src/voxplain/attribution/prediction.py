"""``predict``: the output of a network for one image, in words and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from voxplain.engine.context import Context
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.targets import ImageTarget, Target, UnperturbedOutput, parse_target
from voxplain.targets.base import probability_of
from voxplain.targets.field import predicted_mask
from voxplain.targets.scores import volume_per_voxel

NOT_COVERED = 255
"""The label of voxels for which the network gives no output."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction of a network for one image.

    Attributes:
        output: ``(K,)`` or ``(K, *spatial)`` on the network's grid.
        in_words: The target, in words.
        score: S(x).
        probability: Of the class of the target, for classifiers; None where it is not known whether
            the output is one already.
        labels: Predicted classes on the source grid, ``(*spatial)`` int64, for dense outputs;
            :data:`NOT_COVERED` where an output smaller than the image says nothing. None where
            several classes or none are predicted at one position, as under sigmoid, where the
            place of the output in the image is unknown, and for networks that give an image back
            (targets ``intensity`` and ``reconstruction_error``).
        scores: Class scores by class name, for classifiers.
        volumes: Class volumes by class name, for dense outputs.
        volume_unit: Of those: mL, cm² in 2-D, or voxels where the physical size is unknown.
        remarks: What readers have to know: that the outputs are taken as probabilities, or which
            voxels they cover.
    """

    output: Tensor
    in_words: str
    score: float
    probability: float | None = None
    labels: Tensor | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    volumes: Mapping[str, float] = field(default_factory=dict)
    volume_unit: str = "mL"
    remarks: tuple[str, ...] = ()


def predict(model: Model | nn.Module, image: Image, target: int | str | Target) -> Prediction:
    """The prediction of a network for an image, and the score of a target.

    Args:
        model: The network.
        image: On the grid that the network takes.
        target: What will be explained.

    Raises:
        TargetError: If the target does not fit the output.
    """
    parsed = parse_target(target)
    model = Model.of(model)
    bound = Context.open(model, image).bind(parsed)
    seen, words, score = bound.unperturbed, bound.field.in_words[0], bound.scores[0]
    if not seen.is_dense:
        return Prediction(
            output=seen.output[0],
            in_words=words,
            score=score,
            probability=_probability(seen, bound.field.label_of(0), parsed),
            scores=_scores(seen),
            remarks=(*model.remarks, *bound.field.remarks),
        )
    if isinstance(parsed, ImageTarget):
        return Prediction(output=seen.output[0], in_words=words, score=score)
    masks = _masks(seen, parsed)
    volumes, unit = _volumes(seen, masks)
    return Prediction(
        output=seen.output[0],
        in_words=words,
        score=score,
        labels=_labels(seen, masks, image, parsed),
        volumes=volumes,
        volume_unit=unit,
        remarks=(*model.remarks, *bound.field.remarks),
    )


def _probability(seen: UnperturbedOutput, label: int | None, target: Target) -> float | None:
    if label is None or target.layers or seen.is_unclear(target.activation):
        return None
    return float(probability_of(seen.output, label, seen.activation(target.activation))[0])


def _scores(seen: UnperturbedOutput) -> dict[str, float]:
    if seen.output.shape[1] == 1:
        return {_class_name(seen, 1): float(seen.output[0, 0])}
    return {_class_name(seen, label): float(value) for label, value in enumerate(seen.output[0])}


def _masks(seen: UnperturbedOutput, target: Target) -> Tensor:
    """Where each class is predicted, ``(classes, *cells)`` bool."""
    activation, classes = seen.activation(target.activation), max(2, seen.output.shape[1])
    masks = [predicted_mask(seen.output, k, activation, target.threshold) for k in range(classes)]
    return torch.cat(masks)


def _labels(seen: UnperturbedOutput, masks: Tensor, image: Image, target: Target) -> Tensor | None:
    """Predicted classes on the source grid; None where one label per voxel cannot say them."""
    if image.outputs_first and seen.place is not None and seen.place.is_same:
        restored = image.restore(seen.output[0])[None]
        masks = _masks(replace(seen, output=restored, known_meaning=seen.meaning), target)
        is_one = bool((masks.sum(dim=0) == 1).all())
        return masks.int().argmax(dim=0) if is_one else None
    if seen.place is None or not bool((masks.sum(dim=0) == 1).all()):
        return None
    labels = seen.place.on_image(masks.int().argmax(dim=0), outside=NOT_COVERED)
    return image.restore(labels[None].float(), "label")[0].long()


def _volumes(seen: UnperturbedOutput, masks: Tensor) -> tuple[dict[str, float], str]:
    """Volumes by class name, and their unit; none where the size of a cell is unknown."""
    if seen.voxel_volume is not None and seen.place is None:
        return {}, seen.elements
    per_voxel, unit = volume_per_voxel(seen)
    counts = masks.flatten(1).sum(dim=1).tolist()
    return {_class_name(seen, label): n * per_voxel for label, n in enumerate(counts)}, unit


def _class_name(seen: UnperturbedOutput, label: int) -> str:
    return seen.classes[label] if label < len(seen.classes) else f"class {label}"
