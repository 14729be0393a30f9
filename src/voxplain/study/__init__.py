"""A study: what to do, the tasks it becomes, the run that does them and the folder it leaves."""

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
