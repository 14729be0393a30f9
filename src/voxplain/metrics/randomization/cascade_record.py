"""The record of a cascade in a run directory: curves of all maps, and planes of them to show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from voxplain.engine.randomization.stages import Order
from voxplain.image import Grid
from voxplain.metrics.context import MetricContext
from voxplain.metrics.controls import edges
from voxplain.metrics.metric import BaseMetric, metric_key
from voxplain.metrics.randomization.similarity import Similarity
from voxplain.metrics.randomization.steps import Steps
from voxplain.records.cascades import MEASURES, MapRandomized, MetricFollowed, RandomizationRecord
from voxplain.viz.planes import AXIAL, Plane, plane_of
from voxplain.viz.volume import DisplayVolume

Array = NDArray[Any]


def recorded(
    context: MetricContext,
    cascade: Mapping[str, Steps],
    order: Order,
    case: str = "",
    metrics: Sequence[BaseMetric] = (),
) -> tuple[RandomizationRecord, dict[str, Array]]:
    """The record of a cascade, and its pictures; an edge detector is added as a control.

    Args:
        context: The maps that were randomized.
        cascade: By the key of the method, the result of :class:`Cascade`.
        order: Which stages were randomized first.
        case: Id of the image.
        metrics: That scored the maps of every step.

    Returns:
        The record, and by map the middle axial plane (in 2-D the whole) at every step, oriented as
        on the page; no pictures where the cascade kept none.
    """
    first = next(iter(cascade.values()))
    control = edges(context.input.image, context.spacing)
    everything = {**cascade, "edges": _unchanged(first, control, cascade.get("edges"))}
    record = RandomizationRecord(
        case=case,
        model=context.engine.model.name,
        target=context.bound.target.slug,
        order=order,
        stages=[list(stage) for stage in first.stages],
        maps=[_map_record(name, steps, context) for name, steps in everything.items()],
        metrics=[_metric_record(metric, context) for metric in metrics],
        aspect=_aspect(context),
    )
    if not first.pictures:
        return record, {}
    pictures = {
        name: np.stack([_plane(picture, context) for picture in steps.pictures])
        for name, steps in everything.items()
    }
    return record, {**pictures, "image": _gray(context)}


def _unchanged(first: Steps, values: Tensor, scored: Steps | None) -> Steps:
    """The same map at every step; its scores change with the network."""
    same = Similarity(1.0, 1.0, 1.0, 1.0)
    count = len(first.stages)
    return replace(
        first,
        curves=((same,) * count,),
        pictures=(values,) * count if first.pictures else (),
        chance=(),
        scores=scored.scores if scored else {},
    )


def _metric_record(metric: BaseMetric, context: MetricContext) -> MetricFollowed:
    return MetricFollowed(
        key=metric_key(metric),
        name=metric.name,
        direction=metric.direction,
        minimum=metric.range[0],
        maximum=metric.range[1],
        unit=_unit(metric.unit, context),
        meaning=metric.meaning(),
    )


def _unit(declared: str, context: MetricContext) -> str:
    """A declared unit as it is on the grid of this image."""
    spacing = context.engine.spacing
    if declared not in ("mL", "mm"):
        return declared
    if spacing is None:
        return "voxels"
    return "cm²" if declared == "mL" and len(spacing) == 2 else declared


def _map_record(name: str, steps: Steps, context: MetricContext) -> MapRandomized:
    field = context.fields.get(name)
    control = name == "edges"
    return MapRandomized(
        method=name,
        sign="positive" if control else field.sign if field else "signed",
        control=control,
        similarity={
            measure: [
                [_or_none(getattr(step, measure)) for step in curve] for curve in steps.curves
            ]
            for measure in MEASURES
        },
        chance={
            measure: [_or_none(getattr(pair, measure)) for pair in steps.chance]
            for measure in MEASURES
        },
        scores={
            key: [[_or_none(value) for value in curve] for curve in curves]
            for key, curves in steps.scores.items()
        },
    )


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plane(values: Tensor, context: MetricContext) -> Array:
    """The middle plane of ``(*spatial)`` as on the page, ``(rows, columns)``."""
    volume, plane = _oriented(values, context)
    if plane is None:
        return np.asarray(volume.data[0, :, :, 0])
    return plane.cut(volume.data[0], volume.shape[plane.axis] // 2)


def _aspect(context: MetricContext) -> float:
    """Height of the pixels of a plane relative to their width."""
    volume, plane = _oriented(context.input.image[0], context)
    across, up = (1, 0) if plane is None else plane.axes
    return float(volume.spacing[up] / volume.spacing[across])


def _oriented(values: Tensor, context: MetricContext) -> tuple[DisplayVolume, Plane | None]:
    """A map along patient axes and the plane to show; a picture as it is, and no plane."""
    scan = context.engine.image
    grid = scan.grid if scan else Grid.default(tuple(values.shape))
    volume = DisplayVolume.of(values[None], grid)
    if volume.picture:
        return volume, None
    volume = volume.canonical()
    return volume, plane_of(volume.shape) if volume.planar else AXIAL


def _gray(context: MetricContext) -> Array:
    """The image in [0, 1], ``(rows, columns)``."""
    plane = _plane(context.input.image.double().mean(dim=0), context)
    low, high = np.quantile(plane, [0.01, 0.99])
    if not high > low:
        return np.zeros_like(plane)
    return np.asarray(np.clip((plane - low) / (high - low), 0, 1))
