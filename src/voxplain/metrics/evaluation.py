"""Evaluation: scores of maps and of controls beside them, by any metrics in one call."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from voxplain.attribution.explanation import AnyTarget
from voxplain.attribution.result import Attribution
from voxplain.engine.context import Context, References
from voxplain.errors import ConfigError, InputError, VoxplainWarning
from voxplain.image import Image
from voxplain.metrics.case import Case
from voxplain.metrics.context import MetricContext
from voxplain.metrics.cross_case import completed
from voxplain.metrics.maps import AnyMap, ExternalMap, Maps
from voxplain.metrics.metric import BaseMetric, parse_metric
from voxplain.metrics.other_networks import Networks, other_networks
from voxplain.metrics.scoring import MapScorer
from voxplain.models.model import Model
from voxplain.records.scores import Score, Scores
from voxplain.targets import parse_target

AnyMetric = str | Mapping[str, Any] | BaseMetric


def evaluate(
    model: Model | nn.Module,
    images: Image | Tensor | Sequence[Image],
    attributions: Maps | Sequence[Maps],
    metrics: Sequence[AnyMetric],
    target: AnyTarget,
    *,
    cases: Sequence[Case] = (),
    references: References = None,
    networks: Networks = (),
    controls: bool = True,
    seed: int = 0,
) -> Scores:
    """Scores maps of a network's prediction, each image by itself.

    Args:
        model: The network that was explained.
        images: One image on its grid; several; or a batch ``(B, C, *spatial)``.
        attributions: By name what :func:`voxplain.explain` gave for them, or maps from elsewhere:
            arrays, paths of NIfTI and NumPy files on the grid of the scan, or an
            :class:`~voxplain.metrics.ExternalMap`, which says what its sign means. One mapping, or
            one per image.
        metrics: Names, mappings with parameters, or metrics.
        target: What was explained.
        cases: What is known of each image: id, patient, true class, reference mask. One per image,
            or none.
        references: Other images on the same grid, for metrics that resample from them.
        networks: Other networks that are compared with the first, by how they differ from it:
            ``{"seed": [...], "architecture": [...], "labels": [...]}``, the last trained on
            permuted labels. A plain list means networks that differ by seed or by architecture.
            Bare modules are run like the first network: same head, windows and precision.
        controls: Whether random, edge, intensity and center maps are scored beside the maps.
        seed: Of every random draw.

    Returns:
        One row per image, metric and map or control, and one per image for metrics of the network.

    Raises:
        VoxplainError: If an input does not fit, in one sentence.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
        >>> image, mask = torch.rand(1, 1, 4, 4), torch.eye(4)
        >>> maps = {"mine": torch.rand(1, 1, 4, 4)}
        >>> scores = evaluate(
        ...     network, image, maps, ["roc_auc"], target=1, cases=[Case("p01", mask=mask)]
        ... )
        >>> sorted(row.method for row in scores)
        ['center', 'edges', 'intensity', 'mine', 'random', 'reference']
    """
    parsed = [parse_metric(metric) for metric in metrics]
    if not parsed:
        raise ConfigError("no metric is named; `voxplain metrics` lists them")
    studied, explained = Model.of(model), parse_target(target)
    single_images = list(_images_with_maps(images, attributions))
    described = _described(cases, len(single_images))
    others = other_networks(networks, studied)
    rows: list[Score] = []
    with torch.inference_mode(False):  # a caller may be in it, and explaining again needs it off
        for case, (image, maps) in zip(described, single_images, strict=True):
            engine = Context.open(studied, image if isinstance(image, Image) else image[None], seed)
            context = MetricContext.open(
                engine,
                engine.bind(explained),
                _on_image(maps, engine),
                case,
                references=references,
                networks=others,
                seed=seed,
            )
            rows += scored(MapScorer.of(context, controls, seed), parsed)
    return completed(Scores(tuple(rows)))


def scored(scorer: MapScorer, metrics: Sequence[BaseMetric]) -> list[Score]:
    """The scores of the maps and controls of one image.

    Rows of cross-case metrics hold a summary and no number yet: see
    :func:`voxplain.metrics.cross_case.completed`.
    """
    return [scorer.score(pending) for metric in metrics for pending in scorer.pending(metric)]


def _on_image(maps: Maps, context: Context) -> Maps:
    """The maps without those on the grids of layers, of which a warning tells.

    Raises:
        InputError: If all of them lie on the grids of layers.
    """
    shapes = {context.shape, *([context.image.source_grid.shape] if context.image else [])}
    rank = len(context.shape)
    left_out = [
        name
        for name, source in maps.items()
        if isinstance(source, Attribution)
        and source.layer is not None
        and tuple(source.map.shape[source.map.ndim - rank :]) not in shapes
    ]
    if not left_out:
        return maps
    sentence = (
        f"maps on the grids of layers are not scored: {', '.join(left_out)}; methods that bring "
        "them to the image grid, as CAMs do, can be"
    )
    if len(left_out) == len(maps):
        raise InputError(sentence)
    warnings.warn(sentence, VoxplainWarning, stacklevel=3)
    return {name: source for name, source in maps.items() if name not in left_out}


def _described(cases: Sequence[Case], count: int) -> list[Case]:
    """One case per image, each with an id."""
    if cases and len(cases) != count:
        raise ConfigError(
            f"{len(cases)} case{'s' * (len(cases) > 1)} for {count} image{'s' * (count > 1)}; pass "
            "one Case per image, or none"
        )
    given = cases or [Case()] * count
    return [replace(case, id=case.id or str(number)) for number, case in enumerate(given)]


def _images_with_maps(
    images: Image | Tensor | Sequence[Image], attributions: Maps | Sequence[Maps]
) -> Iterator[tuple[Image | Tensor, Maps]]:
    """Every image with its maps."""
    single = [images] if isinstance(images, Image) else list(images)
    maps = [attributions] if isinstance(attributions, Mapping) else list(attributions)
    if isinstance(attributions, Mapping) and isinstance(images, Tensor):
        maps = [
            {name: _row(name, batch, row) for name, batch in attributions.items()}
            for row in range(len(single))
        ]
    if len(maps) != len(single):
        raise ConfigError(f"{len(maps)} sets of maps for {len(single)} images")
    yield from zip(single, maps, strict=True)


def _row(name: str, batch: AnyMap, row: int) -> AnyMap:
    """The map of one image of a batch."""
    if isinstance(batch, (ExternalMap, str, Path)):
        raise ConfigError(f"the map {name!r} is one map, and the images are a batch of several")
    single: AnyMap = batch[row]
    return single
