"""From cases, networks, targets and methods to tasks: groups of methods that share a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from voxplain.study.planning.tasks import Task

if TYPE_CHECKING:
    from voxplain.study.planning.evaluation_task import EvaluationTask


@dataclass(frozen=True)
class Plan:
    """What a study will do.

    Attributes:
        tasks: In the order in which they run.
        evaluations: Of the maps of each subject, once they are written.
    """

    tasks: tuple[Task, ...]
    evaluations: tuple[EvaluationTask, ...] = ()

    @property
    def passes(self) -> int:
        """Passes of everything."""
        evaluation = sum(evaluation.passes for evaluation in self.evaluations)
        return sum(task.passes for task in self.tasks) + evaluation
