"""Evaluation: maps and controls on the same image, judged by the same metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from voxplain.attribution.explanation import AnyTarget
from voxplain.engine.context import References
from voxplain.errors import ConfigError
from voxplain.image import Image
from voxplain.metrics.context import MetricContext, metric_context
from voxplain.metrics.cross_case import completed
from voxplain.metrics.maps import AnyMap, ExternalMap, Maps
from voxplain.metrics.metric import Metric, parse_metric
from voxplain.metrics.other_networks import Networks, other_networks
from voxplain.metrics.scoring import MapScorer
from voxplain.models.model import Model
from voxplain.records.scores import Scores

T = TypeVar("T")
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
    networks: Networks = (),
    controls: bool = True,
    seed: int = 0,
    cases: Sequence[str] = (),
    patients: Sequence[str] = (),
    truths: Sequence[int | None] = (),
) -> Scores:
    """Scores maps of a network's prediction; every image by itself.

    Args:
        model: The network that was explained.
        images: One image on its grid; several; or a batch ``(B, C, *spatial)``.
        attributions: By name what :func:`voxplain.explain` gave for them, or maps from elsewhere:
            arrays, paths of NIfTI and NumPy files on the grid of the scan, or a
            :class:`~voxplain.metrics.GivenMap`, which says what its sign means.
        metrics: Names, mappings with parameters, or metrics.
        target: What was explained.
        masks: Reference masks ``(*spatial)`` on the grid of the image (of its file, for an
            :class:`Image`), one per image; non-zero is inside.
        references: Other images on the same grid, for metrics that resample from them.
        networks: Other networks that are asked the same, by how they differ from the first:
            ``{"seed": [...], "architecture": [...], "labels": [...]}``, the last trained on
            permuted labels. A plain list means networks that differ by seed or by architecture.
            Bare modules are asked as the first is: same head, windows and precision.
        controls: Judge random, edge, intensity and center maps beside the maps.
        seed: Of every random draw.
        cases: Ids of the images.
        patients: Whose images they are, where several are of one patient: those are resampled
            together.
        truths: The class that is right for each image, for classifiers.

    Raises:
        VoxplainError: In one sentence, whatever does not fit.
    """
    chosen = [parse_metric(metric) for metric in metrics]
    if not chosen:
        raise ConfigError("no metric is asked for; `voxplain metrics` lists them")
    studied, found = Model.of(model), []
    subjects = list(_each(images, attributions, masks))
    whose = _one_each("patients", patients, "", len(subjects))
    known = _one_each("true classes", truths, None, len(subjects))
    others = other_networks(networks, studied)
    with torch.inference_mode(False):  # a caller may be in it, and explaining again needs it off
        for index, (subject, maps, mask) in enumerate(subjects):
            context = metric_context(
                studied, subject, target, mask, references, seed, maps, others, known[index]
            )
            case = cases[index] if index < len(cases) else str(index)
            found.append(judged(context, maps, chosen, controls, case, seed, whose[index]))
    return completed(Scores.joined(found))


def judged(
    context: MetricContext,
    maps: Maps,
    metrics: Sequence[Metric],
    controls: bool = True,
    case: str = "",
    seed: int = 0,
    patient: str = "",
) -> Scores:
    """The scores of some maps of one image, with those of the controls.

    Metrics over cases leave a sketch, and no number yet: see
    :func:`voxplain.metrics.over_cases.concluded`.
    """
    scorer = MapScorer.of(context, maps, controls, case, seed, patient)
    return Scores(
        tuple(
            scorer.score(metric, field) for metric in metrics for field in scorer.judged_by(metric)
        )
    )


def _one_each(what: str, given: Sequence[T], absent: T, count: int) -> Sequence[T]:
    if given and len(given) != count:
        raise ConfigError(f"{len(given)} {what} for {count} images")
    return given or [absent] * count


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
            {name: _row(name, found, index) for name, found in attributions.items()}
            for index in range(len(single))
        ]
    if len(listed) != len(single):
        raise ConfigError(f"{len(listed)} sets of maps for {len(single)} images")
    given = [None] * len(single) if masks is None else list(masks)
    if len(given) != len(single):
        raise ConfigError(f"{len(given)} reference masks for {len(single)} images")
    yield from zip(single, listed, given, strict=True)


def _row(name: str, found: AnyMap, index: int) -> AnyMap:
    """The map of one image of a batch."""
    if isinstance(found, (ExternalMap, str, Path)):
        raise ConfigError(f"the map {name!r} is one map, and the images are a batch of several")
    row: AnyMap = found[index]
    return row
