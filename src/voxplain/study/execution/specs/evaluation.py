"""The scores of maps, as a task."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from voxplain.engine.method import Method
from voxplain.errors import VoxplainWarning
from voxplain.records.manifest import MapRecord
from voxplain.study.execution.earlier_results import ScoreCache
from voxplain.study.execution.evaluation_inputs import EvaluationInputs, reference_mask
from voxplain.study.execution.evaluator import Evaluator, not_scored
from voxplain.study.execution.progress import TaskListener
from voxplain.study.execution.resources import LoadedResources
from voxplain.study.execution.specs.result import TaskResult
from voxplain.study.execution.specs.spec import PlannedSpec
from voxplain.study.planning.evaluation_task import EvaluationTask
from voxplain.study.planning.tasks import TaskId
from voxplain.study.planning.time_limit import TimeLimit


@dataclass(frozen=True, kw_only=True)
class EvaluationSpec(PlannedSpec):
    """The scores of all maps of a combination.

    Attributes:
        task: The metrics.
        declared: The methods of the combination by the hash of what determines their maps, in the
            order of the plan.
        maps: Those that are written already; the tasks it comes ``after`` write the others.
        resume: Whether to keep scores of an earlier run that are still right.
        given_up: Metrics that cannot be done, by their number, and why; 0 is the randomization.
    """

    task: EvaluationTask
    declared: Mapping[str, Method]
    maps: tuple[MapRecord, ...]
    resume: bool = True
    given_up: Mapping[int, str] = field(default_factory=dict)

    def without(self, part: int, reason: str) -> EvaluationSpec:
        """The same without a metric; scores that are finished are kept."""
        return replace(self, given_up={**self.given_up, part: reason}, resume=True)

    def with_results(self, results: Mapping[TaskId, TaskResult]) -> EvaluationSpec:
        """The same with the maps that these tasks have written, in the order of the plan."""
        if not self.after:
            return self
        written = [record for task in self.after for record in results[task].maps]
        order = list(self.declared)
        maps = sorted((*self.maps, *written), key=lambda record: order.index(record.key))
        return replace(self, maps=tuple(maps), after=())

    @property
    def methods(self) -> Sequence[Method]:
        """Those behind the maps, for metrics that explain again."""
        return tuple(self.declared.values())

    def perform(
        self, resources: LoadedResources, listener: TaskListener, limited: TimeLimit
    ) -> TaskResult:
        """Writes the finished scores beside the run; the limit of time holds for each metric."""
        evaluator = Evaluator(
            folder=self.common.folder,
            task=self.task,
            records=self.maps,
            cache=ScoreCache(self.common.folder, self.combination.key, self.resume),
            private=self.private,
            limit=self.common.limit,
            time_limit=limited,
            listener=listener,
            given_up=self.given_up,
        )
        scores, reason = evaluator.run(self._evaluation_inputs(resources))
        for text in not_scored(self.maps):
            warnings.warn(text, VoxplainWarning, stacklevel=2)
        families = evaluator.families
        return TaskResult(self.id, reason=reason, scores=scores, families=families)

    def _evaluation_inputs(self, resources: LoadedResources) -> EvaluationInputs:
        loaded, image = resources.network(self.common), resources.prepared(self.common)
        case = self.common.image.case
        return EvaluationInputs(
            image=image,
            model=loaded.model,
            methods={method.key: method for method in self.methods},
            mask=reference_mask(case, self.combination.target, image),
            references=resources.prepared_references(self.common),
            networks=[loaded.as_other_network(other) for other in resources.compared(self.common)],
            ignore=case.reference_ignore,
            truth=case.truth,
        )
