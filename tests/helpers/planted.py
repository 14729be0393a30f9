"""Cohorts of noise images, and networks of which it is known where concepts lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from voxplain.concepts.concept import Concept
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.grid import Grid
from voxplain.image import Image

SHAPE = (16, 16)


def noise_cohort(
    count: int = 8,
    channels: int = 4,
    shape: Sequence[int] = SHAPE,
    labels: Callable[[Tensor], Tensor] | None = None,
    scale: Sequence[float] | None = None,
) -> Cohort:
    """Cases of normal noise ``(channels, *shape)``; labels are a function of the image."""
    cases = []
    for number in range(count):
        source = torch.Generator().manual_seed(100 + number)
        data = torch.randn(channels, *shape, generator=source)
        if scale is not None:
            data = data * torch.tensor(scale).view(-1, *(1,) * len(shape))
        name = f"case{number}"
        image = Image(data, Grid.default(tuple(shape), 1.0))
        cases.append(CohortCase(name, name, image, labels(data) if labels else None))
    return Cohort.of(cases)


def label_concept(name: str = "planted", value: int = 1) -> Concept:
    """The mask of one label."""
    return Concept(name, "mask", "explicit", "labels", lambda case: case.labels == value)


class Pointwise(nn.Module):
    """The image itself as a layer, and a linear head of its mean."""

    def __init__(self, head: Tensor, rank: int = 2) -> None:
        super().__init__()
        convolution = (nn.Conv2d, nn.Conv3d)[rank - 2]
        count = head.shape[1]
        self.layer = convolution(count, count, 1, bias=False)
        self.layer.weight.data = torch.eye(count).view(count, count, *(1,) * rank)
        self.head = nn.Linear(count, len(head), bias=False)
        self.head.weight.data = head.clone()

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.layer(image).flatten(2).mean(dim=2))
