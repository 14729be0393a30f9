"""Cohorts of noise images, and networks of which it is known where concepts lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from voxplain.concepts.concept import Concept
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.grid import Grid
from voxplain.image import Image

Labels = Callable[[Tensor], Tensor]


def noise_cohort(
    count: int = 8,
    channels: int = 4,
    shape: Sequence[int] = (16, 16),
    labels: Labels | None = None,
) -> Cohort:
    """Cases of normal noise ``(channels, *shape)``; labels are a function of the image."""
    cases = []
    for number in range(count):
        source = torch.Generator().manual_seed(100 + number)
        data = torch.randn(channels, *shape, generator=source)
        name = f"case{number}"
        image = Image(data, Grid.default(tuple(shape), 1.0))
        cases.append(CohortCase(name, name, image, labels(data) if labels else None))
    return Cohort.of(cases)


def one_slice(cohort: Cohort) -> Cohort:
    """The same cases as volumes of one slice."""
    cases = []
    for case in cohort:
        shape = (*case.image.grid.shape, 1)
        image = Image(case.image.data[..., None], Grid.default(shape, 1.0))
        labels = None if case.labels is None else case.labels[..., None]
        cases.append(CohortCase(case.id, case.patient, image, labels, case.facts))
    return Cohort.of(cases)


def backwards(cohort: Cohort) -> Cohort:
    """The same cases in the opposite order."""
    return Cohort.of([*cohort][::-1])


def label_concept(name: str = "planted", value: int = 1) -> Concept:
    """The mask of one label."""
    return Concept(name, "mask", "explicit", "labels", lambda case: case.labels == value)


def bright_along(weights: Tensor, above: float = 1.5) -> Labels:
    """Label 1 where a weighted sum of channels is so many standard deviations above 0."""

    def labels(data: Tensor) -> Tensor:
        reading = torch.einsum("k,k...->...", weights, data)
        return (reading > above * weights.norm()).long()

    return labels


class Pointwise(nn.Module):
    """The image itself as a layer, and a linear head of its mean, or of every voxel."""

    def __init__(self, head: Tensor, rank: int = 2, dense: bool = False) -> None:
        super().__init__()
        convolution = (nn.Conv2d, nn.Conv3d)[rank - 2]
        count, self.dense = head.shape[1], dense
        self.layer = convolution(count, count, 1, bias=False)
        self.layer.weight.data = torch.eye(count).view(count, count, *(1,) * rank)
        self.head = convolution(count, len(head), 1, bias=False)
        self.head.weight.data = head.clone().view(*head.shape, *(1,) * rank)

    def forward(self, image: Tensor) -> Tensor:
        scores = self.head(self.layer(image))
        return scores if self.dense else scores.flatten(2).mean(dim=2)


class Strided(nn.Module):
    """A padded convolution of stride 2, which moves cells away from an even division."""

    def __init__(self, rank: int = 2, channels: int = 3) -> None:
        super().__init__()
        convolution = (nn.Conv2d, nn.Conv3d)[rank - 2]
        self.first = convolution(channels, 5, 3, stride=2, padding=1)
        self.second = convolution(5, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, image: Tensor) -> Tensor:
        deep = torch.relu(self.second(torch.relu(self.first(image))))
        return self.head(deep.flatten(2).mean(dim=2))
