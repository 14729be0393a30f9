"""Evaluation: maps and controls on the same image, judged by the same metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from voxplain.attribution.explanation import AnyTarget, References
from voxplain.errors import ConfigError, VoxplainError
from voxplain.image import Image
from voxplain.metrics.asking import Maps, map_field, question_about
from voxplain.metrics.controls import control_maps
from voxplain.metrics.field import MapField
from voxplain.metrics.metric import Metric, Value, parse_metric
from voxplain.metrics.question import Question
from voxplain.metrics.scores import Score, Scores
from voxplain.model import Model

AnyMetric = str | Mapping[str, Any] | Metric


def evaluate(
    model: Model | nn.Module,
    images: Image | Tensor | Sequence[Image],
    attributions: Maps | Sequence[Maps],
    metrics: Sequence[AnyMetric],
    target: AnyTarget,
    *,
    masks: Tensor | Sequence[Tensor | None] | None = None,
    references: References = None,
    networks: Sequence[Model | nn.Module] = (),
    controls: bool = True,
    seed: int = 0,
    cases: Sequence[str] = (),
) -> Scores:
    """Scores maps of a network's prediction; every image by itself.

    Args:
        model: The network that was explained.
        images: One image on its grid; several; or a batch ``(B, C, *spatial)``.
        attributions: What :func:`voxplain.explain` gave for them, or maps from elsewhere.
        metrics: Names, mappings with parameters, or metrics.
        target: What was explained.
        masks: Reference masks ``(*spatial)`` on the grid of the image (of its file, for an
            :class:`Image`), one per image; non-zero is inside.
        references: Other images on the same grid, for metrics that resample from them.
        networks: Other networks that should give the same maps, for metrics of agreement.
        controls: Judge random, edge, intensity and center maps beside the maps.
        seed: Of every random draw.
        cases: Ids of the images.

    Raises:
        VoxplainError: In one sentence, whatever does not fit.
    """
    chosen = [parse_metric(metric) for metric in metrics]
    if not chosen:
        raise ConfigError("no metric is asked for; `voxplain metrics` lists them")
    studied, found = Model.of(model), []
    for index, (subject, maps, mask) in enumerate(_each(images, attributions, masks)):
        question = question_about(
            studied, subject, target, mask, references, seed, maps, [Model.of(n) for n in networks]
        )
        case = cases[index] if index < len(cases) else str(index)
        found.append(judged(question, maps, chosen, controls, case, seed))
    return Scores.joined(found)


def judged(
    question: Question,
    maps: Maps,
    metrics: Sequence[Metric],
    controls: bool = True,
    case: str = "",
    seed: int = 0,
) -> Scores:
    """The scores of some maps of one image, with those of the controls."""
    fields = [map_field(name, found, question) for name, found in maps.items()]
    question.fields = {field.name: field for field in fields}
    others = control_maps(question) if controls else []
    if taken := {field.name for field in others} & set(question.fields):
        raise ConfigError(
            f"a map is called {min(taken)!r}, which is the name of a control; call it something "
            "else, or leave the controls out"
        )
    facts = {
        "case": case,
        "model": question.scene.model.name,
        "target": question.bound.target.slug,
        "seed": seed,
    }
    rows = []
    for metric in metrics:
        for field in (*fields, *others):
            before = question.forwards
            value, reason = _scored(metric, field, question)
            rows.append(
                Score(
                    metric=metric.name,
                    method=field.name,
                    value=value.value,
                    direction=metric.direction,
                    minimum=metric.range[0],
                    maximum=metric.range[1],
                    unit=str(value.facts.get("unit", metric.unit)),
                    control=field in others,
                    reason=reason,
                    passes=question.forwards - before,
                    parameters=metric.model_dump(mode="json", exclude={"name"}),
                    facts=dict(value.facts),
                    curve=value.curve,
                    family=metric.family,
                    meaning=metric.meaning(),
                    **facts,  # type: ignore[arg-type]
                )
            )
    return Scores(tuple(rows))


def _scored(metric: Metric, field: MapField, question: Question) -> tuple[Value, str]:
    try:
        value = metric.score(field, question)
    except VoxplainError as error:
        return Value(math.nan), str(error)
    if math.isfinite(value.value):
        return value, ""
    return replace(value, value=math.nan), "the score is not a finite number"


def _each(
    images: Image | Tensor | Sequence[Image],
    attributions: Maps | Sequence[Maps],
    masks: Tensor | Sequence[Tensor | None] | None,
) -> Iterator[tuple[Image | Tensor, Maps, Tensor | None]]:
    """Every image with its maps and its mask."""
    if isinstance(images, Image):
        single: list[Image | Tensor] = [images]
        masks = [masks] if isinstance(masks, Tensor) else masks
    else:
        single = list(images)
    listed = [attributions] if isinstance(attributions, Mapping) else list(attributions)
    if isinstance(attributions, Mapping) and isinstance(images, Tensor):
        listed = [
            {name: found[index] for name, found in attributions.items()}
            for index in range(len(single))
        ]
    if len(listed) != len(single):
        raise ConfigError(f"{len(listed)} sets of maps for {len(single)} images")
    given = [None] * len(single) if masks is None else list(masks)
    if len(given) != len(single):
        raise ConfigError(f"{len(given)} reference masks for {len(single)} images")
    yield from zip(single, listed, given, strict=True)
