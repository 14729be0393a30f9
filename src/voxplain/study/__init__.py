"""A study: what to do, the tasks it becomes, the run that does them and the folder it leaves."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxplain.io.manifest import Manifest
    from voxplain.study.cases import CaseConfig
    from voxplain.study.check import Checked, check_study
    from voxplain.study.config import ModelConfig, RunConfig, Study
    from voxplain.study.plan import Plan, Task
    from voxplain.study.progress import Listener
    from voxplain.study.run import Run, run_study

__all__ = [
    "CaseConfig",
    "Checked",
    "Listener",
    "Manifest",
    "ModelConfig",
    "Plan",
    "Run",
    "RunConfig",
    "Study",
    "Task",
    "check_study",
    "run_study",
]

# A report reads the manifest alone; it does not need the engine that a study imports.
_ROOMS = {
    "CaseConfig": "cases",
    "Checked": "check",
    "Listener": "progress",
    "Manifest": "manifest",
    "ModelConfig": "config",
    "Plan": "plan",
    "Run": "run",
    "RunConfig": "config",
    "Study": "config",
    "Task": "plan",
    "check_study": "check",
    "run_study": "run",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)
