"""Metrics whose random draws are replaced by given ones, to compare them with other libraries."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.variants.perturbations import Perturbation
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.families.drop_correlation import FaithfulnessCorrelation
from voxplain.metrics.families.infidelity import Infidelity, InfidelityNormalized
from voxplain.metrics.families.robustness import MaxSensitivity, Neighbors
from voxplain.metrics.queries.subsets import NoiseDrops, RandomSubsets, SubsetDrops, drops_without


@dataclass(frozen=True, eq=False)
class GivenChanges(NoiseDrops):
    """Changes ``(n, C, *spatial)`` that were drawn elsewhere."""

    changes: Tensor = field(default_factory=lambda: torch.empty(0))

    @classmethod
    def of(cls, changes: Tensor) -> GivenChanges:
        return cls(draws=len(changes), changes=changes)

    def noise(self, context: MetricContext, draw: int) -> Tensor:
        return self.changes[draw].to(context.input.image)


class GivenInfidelity(Infidelity):
    given: GivenChanges

    def queries(self, context: Context) -> tuple[Query, ...]:
        return (self.given,)


class GivenNormalized(InfidelityNormalized):
    given: GivenChanges

    def queries(self, context: Context) -> tuple[Query, ...]:
        return (self.given,)


@dataclass(frozen=True, eq=False)
class GivenNeighbors(Perturbation):
    """What is added to the image, ``(n, C, *spatial)``."""

    noise: Tensor

    def changed(self, image: Tensor, key: str, draw: int) -> Tensor:
        return image + self.noise[draw].to(image)


class GivenSensitivity(MaxSensitivity):
    given: Tensor

    def queries(self, context: Context) -> tuple[Query, ...]:
        return (Neighbors(GivenNeighbors(self.given), self.draws),)


@dataclass(frozen=True, eq=False)
class GivenSubsets(RandomSubsets):
    """Subsets ``(n, regions)`` that were drawn elsewhere."""

    subsets: Tensor = field(default_factory=lambda: torch.empty(0))

    def run(self, context: MetricContext) -> SubsetDrops:
        regions = context.engine.regions(self.regions, context.input)
        return drops_without(context, regions, self.subsets, self.fill)


class GivenCorrelation(FaithfulnessCorrelation):
    subsets: Tensor

    def queries(self, context: Context) -> tuple[Query, ...]:
        return (GivenSubsets(self.regions, self.fill, subsets=self.subsets),)
