"""A study: what to do, the tasks it becomes, the run that does them and the folder it leaves."""

from __future__ import annotations

from voxplain.records.manifest import Manifest
from voxplain.study.config.cases import CaseConfig
from voxplain.study.config.run import RunConfig
from voxplain.study.config.study import ModelConfig
from voxplain.study.execution.progress import Listener
from voxplain.study.execution.selection import Selection
from voxplain.study.planning.checked_study import CheckedStudy, Plan, check_study
from voxplain.study.planning.tasks import Task
from voxplain.study.run import Run, run_study
from voxplain.study.study import Study

__all__ = [
    "CaseConfig",
    "CheckedStudy",
    "Listener",
    "Manifest",
    "ModelConfig",
    "Plan",
    "Run",
    "RunConfig",
    "Selection",
    "Study",
    "Task",
    "check_study",
    "run_study",
]
