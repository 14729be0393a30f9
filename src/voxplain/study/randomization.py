"""Cascading randomization as a study asks for it, and what it leaves in the run directory."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from voxplain.attribution import Method
from voxplain.attribution.identity import identity
from voxplain.io.randomization import RandomizationRecord
from voxplain.metrics import Question
from voxplain.metrics.randomization import Cascade, Order, ParameterRandomization, Steps, recorded
from voxplain.metrics.randomization.record import Array


class RandomizationConfig(BaseModel):
    """The network forgets what it learned, stage by stage: which maps notice?

    Attributes:
        order: ``top_down`` (the output first), ``bottom_up``, or ``independent`` (one stage at a
            time, the others trained).
        steps: Stages are joined to at most so many steps.
        seeds: Repeats with other weights.
        methods: Labels of methods of the study; all of them if empty.
        pictures: Keep a plane of every map at every step, for the strip of the report.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: Order = "top_down"
    steps: int = Field(default=12, ge=1)
    seeds: int = Field(default=3, ge=1)
    methods: tuple[str, ...] = ()
    pictures: bool = True

    @property
    def metric(self) -> ParameterRandomization:
        """What goes into the table."""
        return ParameterRandomization(order=self.order, steps=self.steps, seeds=self.seeds)

    def of(self, methods: Sequence[Method]) -> list[Method]:
        """The methods that are asked for."""
        return [each for each in methods if not self.methods or each.key in self.methods]


def cascade(
    asked: RandomizationConfig, question: Question, case: str
) -> tuple[RandomizationRecord, dict[str, Array]]:
    """Runs the cascade; the metric that reads its curves finds them answered.

    Args:
        asked: What the study says.
        question: The maps of one image; only some of them may be asked for.
        case: Id of the image.
    """
    chosen = copy.copy(question)
    chosen.methods = tuple(asked.of(question.methods))
    probe = Cascade(asked.order, asked.steps, asked.seeds, pictures=asked.pictures)
    found: dict[str, Steps] = probe.run(chosen, next(iter(question.fields.values())))
    (answered,) = asked.metric.probes(question.scene)
    question.remembered((identity(answered), None), lambda: found)
    return recorded(question, found, asked.order, case)
