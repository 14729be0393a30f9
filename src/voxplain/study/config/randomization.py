"""Cascading randomization as a study asks for it, and what it leaves in the run directory."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from voxplain.engine.method import Method
from voxplain.metrics import BaseMetric, MetricContext, NetworkMetric
from voxplain.metrics.cross_case import CrossCaseMetric
from voxplain.metrics.randomization import Cascade, Order, ParameterRandomization, Steps, recorded
from voxplain.metrics.randomization.cascade_record import Array
from voxplain.records.cascades import RandomizationRecord
from voxplain.study.config.declarations import StudyMetric


def _of_one_map(metric: BaseMetric) -> BaseMetric:
    """Refuses what needs more than the map and the network of one step."""
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
        return "is a check of its own on what maps owe to the network"
    if metric.family == "agreement":
        return "compares the map with those of other methods or networks"
    if isinstance(metric, CrossCaseMetric):
        return "compares cases"
    if metric.name == "completeness_residual":
        return "is read from what an explanation notes on its way"
    return ""


class RandomizationConfig(BaseModel):
    """The network forgets what it learned, stage by stage: which maps notice?

    Attributes:
        order: ``top_down`` (the output first), ``bottom_up``, or ``independent`` (one stage at a
            time, the others trained).
        steps: Stages are joined to at most so many steps.
        seeds: Repeats with other weights.
        methods: Labels of methods of the study; all of them if empty.
        pictures: Keep a plane of every map at every step, for the strip of the report.
        metrics: Judge the maps of every step as well, each by asking the network of its step; an
            edge detector beside them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: Order = "top_down"
    steps: int = Field(default=12, ge=1)
    seeds: int = Field(default=3, ge=1)
    methods: tuple[str, ...] = ()
    pictures: bool = True
    metrics: tuple[Annotated[StudyMetric, AfterValidator(_of_one_map)], ...] = ()

    @property
    def metric(self) -> ParameterRandomization:
        """What goes into the table."""
        return ParameterRandomization(order=self.order, steps=self.steps, seeds=self.seeds)

    def of(self, methods: Sequence[Method]) -> list[Method]:
        """The methods that are asked for."""
        return [each for each in methods if not self.methods or each.key in self.methods]


def cascade(
    asked: RandomizationConfig, context: MetricContext, case: str
) -> tuple[RandomizationRecord, dict[str, Array]]:
    """Runs the cascade; the metric that reads its curves finds them answered.

    Args:
        asked: What the study says.
        context: The maps of one image; only some of them may be asked for.
        case: Id of the image.
    """
    chosen = copy.copy(context)
    chosen.methods = tuple(asked.of(context.methods))
    query = Cascade(
        asked.order, asked.steps, asked.seeds, pictures=asked.pictures, metrics=asked.metrics
    )
    found: dict[str, Steps] = query.run(chosen)
    (answered,) = asked.metric.queries(context.engine)
    context.keep_result(answered, found)
    return recorded(context, found, asked.order, case, asked.metrics)
