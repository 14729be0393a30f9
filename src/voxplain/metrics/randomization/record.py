"""A cascade as a run keeps it: curves of all maps and an edge detector, and planes to look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from voxplain.image import Grid
from voxplain.metrics.context import MetricContext
from voxplain.metrics.controls import edges
from voxplain.metrics.metric import Metric, metric_key
from voxplain.metrics.randomization.similarity import Similarity
from voxplain.metrics.randomization.stages import Order
from voxplain.metrics.randomization.steps import Steps
from voxplain.records.cascades import MEASURES, MapRandomized, MetricFollowed, RandomizationRecord
from voxplain.viz.planes import AXIAL, Plane, plane_of
from voxplain.viz.volume import DisplayVolume

Array = NDArray[Any]


def recorded(
    context: MetricContext,
    found: Mapping[str, Steps],
    order: Order,
    case: str = "",
    metrics: Sequence[Metric] = (),
) -> tuple[RandomizationRecord, dict[str, Array]]:
    """What a cascade found, with an edge detector beside it, which asks no network.

    Args:
        context: Whose maps they are.
        found: By the key of the method, what :class:`Cascade` answered.
        order: In which the stages lost their training.
        case: Id of the image.
        metrics: That judged the maps of every step.

    Returns:
        The record, and its pictures: the middle axial plane (in 2-D the whole) of every map at
        every step, as it hangs on the page; empty where the cascade kept none.
    """
    first = next(iter(found.values()))
    control = edges(context.item.image, context.spacing)
    everything = {**found, "edges": _unmoved(first, control, found.get("edges"))}
    record = RandomizationRecord(
        case=case,
        model=context.base.model.name,
        target=context.bound.target.slug,
        order=order,
        stages=[list(stage) for stage in first.stages],
        maps=[_map(name, steps, context) for name, steps in everything.items()],
        metrics=[_followed(metric, context) for metric in metrics],
        aspect=_aspect(context),
    )
    if not first.pictures:
        return record, {}
    pictures = {
        name: np.stack([_plane(picture, context) for picture in steps.pictures])
        for name, steps in everything.items()
    }
    return record, {**pictures, "image": _gray(context)}


def _unmoved(first: Steps, map: Tensor, judged: Steps | None) -> Steps:
    """The same map at every step; what changes is the network that it is judged with."""
    same = Similarity(1.0, 1.0, 1.0, 1.0)
    count = len(first.stages)
    return replace(
        first,
        curves=((same,) * count,),
        pictures=(map,) * count if first.pictures else (),
        chance=(),
        scores=judged.scores if judged else {},
    )


def _followed(metric: Metric, context: MetricContext) -> MetricFollowed:
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
    """As it is on this grid."""
    spacing = context.base.spacing
    if declared not in ("mL", "mm"):
        return declared
    if spacing is None:
        return "voxels"
    return "cm²" if declared == "mL" and len(spacing) == 2 else declared


def _map(name: str, steps: Steps, context: MetricContext) -> MapRandomized:
    field = context.fields.get(name)
    control = name == "edges"
    return MapRandomized(
        method=name,
        sign="positive" if control else field.sign if field else "signed",
        control=control,
        similarity={
            measure: [[_known(getattr(step, measure)) for step in curve] for curve in steps.curves]
            for measure in MEASURES
        },
        chance={
            measure: [_known(getattr(pair, measure)) for pair in steps.chance]
            for measure in MEASURES
        },
        scores={
            key: [[_known(value) for value in curve] for curve in curves]
            for key, curves in steps.scores.items()
        },
    )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plane(map: Tensor, context: MetricContext) -> Array:
    """``(rows, columns)`` of the middle plane as it hangs on the page."""
    volume, plane = _hung(map, context)
    if plane is None:
        return np.asarray(volume.data[0, :, :, 0])
    return plane.cut(volume.data[0], volume.shape[plane.axis] // 2)


def _aspect(context: MetricContext) -> float:
    """Height of the pixels of a plane relative to their width."""
    volume, plane = _hung(context.item.image[0], context)
    across, up = (1, 0) if plane is None else plane.axes
    return float(volume.spacing[up] / volume.spacing[across])


def _hung(map: Tensor, context: MetricContext) -> tuple[DisplayVolume, Plane | None]:
    """A map on patient axes and its plane; a picture as it is, without."""
    scan = context.base.image
    volume = DisplayVolume.of(map[None], scan.grid if scan else Grid.default(tuple(map.shape)))
    if volume.picture:
        return volume, None
    volume = volume.canonical()
    return volume, plane_of(volume.shape) if volume.planar else AXIAL


def _gray(context: MetricContext) -> Array:
    plane = _plane(context.item.image.double().mean(dim=0), context)
    low, high = np.quantile(plane, [0.01, 0.99])
    if not high > low:
        return np.zeros_like(plane)
    return np.asarray(np.clip((plane - low) / (high - low), 0, 1))
