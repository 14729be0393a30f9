"""``predict``: the output of a network for one image, in words and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from voxplain.engine.context import Context
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.targets import ImageTarget, Target, UnperturbedOutput, parse_target
from voxplain.targets.base import probability_of
from voxplain.targets.field import predicted_mask
from voxplain.targets.scores import volume_per_voxel


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction of a network for one image.

    Attributes:
        output: ``(K,)`` or ``(K, *spatial)`` on the network's grid.
        in_words: The target, in words.
        score: S(x).
        probability: Of the class of the target, for classifiers.
        labels: Predicted classes on the source grid, ``(*spatial)`` int64, for dense outputs;
            None for networks that give an image back (targets ``intensity`` and
            ``reconstruction_error``).
        scores: Class scores by class name, for classifiers.
        volumes: Class volumes by class name, for dense outputs.
        volume_unit: Of those: mL, cm² in 2-D, or voxels where the physical size is unknown.
    """

    output: Tensor
    in_words: str
    score: float
    probability: float | None = None
    labels: Tensor | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    volumes: Mapping[str, float] = field(default_factory=dict)
    volume_unit: str = "mL"


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
    bound = Context.open(model, image).bind(parsed)
    seen, words, score = bound.unperturbed, bound.field.in_words[0], bound.scores[0]
    if not seen.is_dense:
        return Prediction(
            output=seen.output[0],
            in_words=words,
            score=score,
            probability=_probability(seen, bound.field.label_of(0), parsed),
            scores=_scores(seen),
        )
    if isinstance(parsed, ImageTarget):
        return Prediction(output=seen.output[0], in_words=words, score=score)
    labels = _labels(seen, parsed)
    volumes, unit = _volumes(seen, labels)
    is_on_grid = tuple(labels.shape) == image.grid.shape
    return Prediction(
        output=seen.output[0],
        in_words=words,
        score=score,
        labels=image.restore(labels[None].float(), "label")[0].long() if is_on_grid else None,
        volumes=volumes,
        volume_unit=unit,
    )


def _probability(seen: UnperturbedOutput, label: int | None, target: Target) -> float | None:
    if label is None or target.layers:
        return None
    return float(probability_of(seen.output, label, target.activation)[0])


def _scores(seen: UnperturbedOutput) -> dict[str, float]:
    if seen.output.shape[1] == 1:
        return {_class_name(seen, 1): float(seen.output[0, 0])}
    return {_class_name(seen, label): float(value) for label, value in enumerate(seen.output[0])}


def _labels(seen: UnperturbedOutput, target: Target) -> Tensor:
    """Predicted classes ``(*spatial)``."""
    output = seen.output
    if output.shape[1] > 1:
        return output.argmax(dim=1)[0]
    return predicted_mask(output, 1, target.activation, target.threshold)[0].long()


def _volumes(seen: UnperturbedOutput, labels: Tensor) -> tuple[dict[str, float], str]:
    """Volumes by class name, and their unit."""
    per_voxel, unit = volume_per_voxel(seen)
    counts = torch.bincount(labels.flatten(), minlength=max(2, seen.output.shape[1])).tolist()
    volumes = {_class_name(seen, label): count * per_voxel for label, count in enumerate(counts)}
    return volumes, unit


def _class_name(seen: UnperturbedOutput, label: int) -> str:
    return seen.classes[label] if label < len(seen.classes) else f"class {label}"
