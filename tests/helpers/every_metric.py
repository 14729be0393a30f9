"""Every metric of the registry with parameters that keep a test short."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from networks import classifier, images, segmenter
from torch import Tensor, nn

from voxplain.attribution import Attribution, explain
from voxplain.metrics import Case, CrossCaseMetric, NetworkMetric, evaluate, metrics
from voxplain.metrics.other_networks import Role
from voxplain.records.scores import Scores

NAMES = tuple(metrics)
CROSS_CASE = tuple(name for name in NAMES if issubclass(metrics.get(name), CrossCaseMetric))
OF_NETWORK = tuple(name for name in NAMES if issubclass(metrics.get(name), NetworkMetric))
METHODS = ("saliency", "input_x_gradient")
SEGMENT: dict[str, Any] = {"kind": "pixelwise", "label": 1}
SCORE: dict[str, Any] = {"kind": "class_score", "label": 1}
DIM = 0.01


def certain(rank: int = 2, channels: int = 1) -> nn.Sequential:
    """A classifier that predicts class 1, except for an image that is almost zero."""
    network, image = classifier(rank, channels), images(rank, channels)
    with torch.no_grad():
        scores = network(torch.cat([image, DIM * image]))
        leads = scores[:, 1] - scores[:, ::2].amax(dim=1)
        network.head.bias[1] -= leads.mean()
    return network


TASKS: dict[str, tuple[Callable[..., nn.Sequential], dict[str, Any]]] = {
    "classification": (certain, SCORE),
    "segmentation": (segmenter, SEGMENT),
}
FEW: dict[str, Any] = {
    "levels": 4,
    "mosaics": 2,
    "draws": 10,
    "steps": 1,
    "seeds": 2,
    "copies": 2,
    "regions": {"kind": "blocks", "size": 2},
    "changes": ("bias_field", "rotation"),
    "margin": 1.0,  # mm, of images of 6 mm
    "tolerance": 1.0,
}


def short(name: str) -> dict[str, Any]:
    """A metric with few draws and levels."""
    fields = metrics.get(name).model_fields
    chosen = {key: value for key, value in FEW.items() if key in fields}
    if "draws" in chosen and metrics.get(name).family == "robustness":
        chosen["draws"] = 2  # each is an explanation
    return {"name": name, **chosen}


def lesion(rank: int, size: int = 6) -> Tensor:
    """A reference mask ``(*spatial)``."""
    mask = torch.zeros((size,) * rank)
    mask[(slice(1, 3),) * rank] = 1
    return mask


def maps_of(
    network: nn.Module, batch: Tensor, target: Any, methods: Sequence[str] = METHODS
) -> dict[str, Attribution]:
    """Attributions of a batch by name."""
    return explain(network, batch, list(methods), target)


def table(
    task: str,
    rank: int,
    channels: int,
    batch: int = 1,
    names: Sequence[str] = NAMES,
    **options: Any,
) -> Scores:
    """Scores of two maps and the controls by every metric, on N(0, 1) images in float64."""
    build, target = TASKS[task]
    network = build(rank, channels).double()
    image = images(rank, channels).double()
    others = images(rank, channels, 12).double()[8:]
    others = torch.cat([others, DIM * others])
    return evaluate(
        network,
        image,
        maps_of(network, image, target),
        [short(name) for name in names],
        target,
        cases=[Case(mask=lesion(rank), truth=1)],
        references=others,
        networks={role: [build(rank, channels).double()] for role in get_args(Role)},
        **options,
    )
