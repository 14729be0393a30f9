"""Maps of methods that share a stream, as a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from voxplain.attribution.explanation import explain_in
from voxplain.engine.method import Method
from voxplain.study.execution.progress import TaskListener
from voxplain.study.execution.resources import LoadedResources
from voxplain.study.execution.specs.result import TaskResult
from voxplain.study.execution.specs.spec import PlannedSpec
from voxplain.study.planning.tasks import Task
from voxplain.study.planning.time_limit import TimeLimit


@dataclass(frozen=True, kw_only=True)
class ExplanationSpec(PlannedSpec):
    """The maps of a group of methods that share a stream.

    Attributes:
        task: The methods whose maps are missing.
    """

    task: Task

    @property
    def methods(self) -> Sequence[Method]:
        """Those of the task."""
        return tuple(self.task.methods.values())

    def perform(
        self, resources: LoadedResources, listener: TaskListener, limited: TimeLimit
    ) -> TaskResult:
        """Writes the maps with their sidecars."""
        store = self.store
        with limited(self.common.limit):
            attributions = explain_in(
                resources.context(self.common),
                self.methods,
                self.combination.target,
                references=resources.prepared_references(self.common) or None,
                seed=self.combination.draw_seed,
                progress=listener.passed,
            )
            keys = {method.key: key for key, method in self.task.methods.items()}
            maps = tuple(
                store.write_map(self.combination, attribution, keys[attribution.method.key])
                for attribution in attributions.values()
            )
        return TaskResult(self.id, maps=maps, seals=store.seals)
