"""Parameter randomization as a study asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from voxplain.engine.method import Method
from voxplain.metrics import BaseMetric, NetworkMetric
from voxplain.metrics.cross_case import CrossCaseMetric
from voxplain.metrics.randomization import Cascade, Order, ParameterRandomization
from voxplain.study.config.declarations import StudyMetric


def _for_one_map(metric: BaseMetric) -> BaseMetric:
    """Refuses metrics that need more than one map and the network of one step."""
    reason = _why_not(metric)
    if reason:
        raise ValueError(
            f"{metric.name} {reason}; at every step of a cascade, metrics that ask one network "
            "about one map can be computed, such as morf_lerf_gap or roc_auc"
        )
    return metric


def _why_not(metric: BaseMetric) -> str:
    if isinstance(metric, NetworkMetric):
        return "is about a network and no map"
    if metric.family == "randomization":
        return "checks itself how maps depend on the weights"
    if metric.family == "agreement":
        return "compares the map with those of other methods or networks"
    if isinstance(metric, CrossCaseMetric):
        return "compares cases"
    if metric.name == "completeness_residual":
        return "is recorded while a map is made"
    return ""


class RandomizationConfig(BaseModel):
    """The weights of the network are randomized, stage by stage, and the maps are compared.

    Attributes:
        order: ``top_down`` (the output first), ``bottom_up``, or ``independent`` (one stage at a
            time, the others trained).
        steps: Stages are joined to at most so many steps.
        seeds: Repeats with other weights.
        methods: Labels of methods of the study; all of them if empty.
        pictures: Keep a plane of every map at every step, for the strip of the report.
        metrics: Score the maps of every step as well, each with the network of its step; an edge
            detector beside them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: Order = "top_down"
    steps: int = Field(default=12, ge=1)
    seeds: int = Field(default=3, ge=1)
    methods: tuple[str, ...] = ()
    pictures: bool = True
    metrics: tuple[Annotated[StudyMetric, AfterValidator(_for_one_map)], ...] = ()

    @property
    def metric(self) -> ParameterRandomization:
        """The metric that goes into the table of scores."""
        return ParameterRandomization(order=self.order, steps=self.steps, seeds=self.seeds)

    @property
    def query(self) -> Cascade:
        """The cascade itself, with pictures and the metrics of every step."""
        return Cascade(
            self.order, self.steps, self.seeds, pictures=self.pictures, metrics=self.metrics
        )

    def chosen(self, methods: Sequence[Method]) -> list[Method]:
        """The methods whose maps go through the cascade."""
        return [method for method in methods if not self.methods or method.key in self.methods]
