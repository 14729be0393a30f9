"""What the tests of metrics share: linear networks, metric contexts, and single scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from voxplain.attribution import Attribution, explain
from voxplain.engine.context import Context
from voxplain.errors import VoxplainError
from voxplain.image import Image
from voxplain.metrics import BaseMetric, Case, MapField, MetricContext, Value, parse_metric
from voxplain.models.model import Model
from voxplain.targets import parse_target

CLASS_ONE: dict[str, Any] = {"kind": "class_score", "label": 1}
BLOCKS: dict[str, Any] = {"kind": "blocks", "size": 2}


class LinearClasses(nn.Module):
    """Scores <w_k, x> + k of three classes, in float64."""

    def __init__(self, shape: tuple[int, ...], classes: int = 3) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(3)
        weights = torch.randn(classes, *shape, generator=source, dtype=torch.float64)
        self.weight = nn.Parameter(weights)
        self.bias = nn.Parameter(torch.arange(classes, dtype=torch.float64))

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1) @ self.weight.flatten(1).T + self.bias


def present(network: LinearClasses, mean: float = 0.4) -> LinearClasses:
    """The same network, with evidence for class 1 on an image of positive values."""
    with torch.no_grad():
        network.weight[1] += mean - network.weight[1].mean()
    return network


def bright(rank: int = 2, channels: int = 1, size: int = 6, seed: int = 0) -> Tensor:
    """An image ``(C, *spatial)`` in float64 without any value near 0."""
    source = torch.Generator().manual_seed(seed + 1)
    values = torch.rand(channels, *(size,) * rank, generator=source, dtype=torch.float64)
    return 0.5 + values


def metric_context(
    network: nn.Module | Model,
    image: Tensor | Image,
    maps: Mapping[str, Attribution | Tensor] | None = None,
    target: Any = CLASS_ONE,
    mask: Tensor | None = None,
    truth: int | None = None,
    **options: Any,
) -> MetricContext:
    """The context of some maps of an image ``(C, *spatial)`` or on its grid."""
    context = Context.open(network, image if isinstance(image, Image) else image[None])
    bound = context.bind(parse_target(target))
    return MetricContext.open(context, bound, maps, Case(mask=mask, truth=truth), **options)


def explained(
    network: nn.Module | Model,
    image: Tensor,
    *methods: Any,
    target: Any = CLASS_ONE,
    **options: Any,
) -> MetricContext:
    """The context of the maps that some methods give."""
    found = explain(network, image[None], list(methods), target, **options)
    maps = {name: attribution[0] for name, attribution in found.items()}
    return metric_context(network, image, maps, target, **options)


def value(
    metric: str | BaseMetric, field: MapField, context: MetricContext, **parameters: Any
) -> Value:
    """The value of a metric for one map."""
    spec = {"name": metric, **parameters} if isinstance(metric, str) else metric
    (pending,) = parse_metric(spec).pending([field])
    return pending.compute(context)


def number(metric: str, values: Tensor, context: MetricContext, **parameters: Any) -> float:
    """The value of a metric for a map from elsewhere, as a number."""
    return value(metric, context.map_field("given", values), context, **parameters).value


def reason(
    metric: str | BaseMetric, field: MapField, context: MetricContext, **parameters: Any
) -> str:
    """Why a metric is undefined; empty where it has a value."""
    try:
        found = value(metric, field, context, **parameters)
    except VoxplainError as error:
        return str(error)
    assert math.isfinite(found.value), found
    return ""
