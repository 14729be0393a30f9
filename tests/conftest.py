"""Shared by all tests: few threads, and the folder of real data where it is present."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

# Before torch is imported: the suite runs in several processes on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

if TYPE_CHECKING:
    from voxplain.study.config.run import RunConfig
    from voxplain.study.execution.executors.worker import WorkerSettings

REAL_DATA = Path(__file__).parents[1] / "../shared/data"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies run in the process of the test unless they say how many workers they want."""
    from voxplain.study import run

    def workers_of(settings: RunConfig, held: float) -> list[WorkerSettings]:
        return [] if settings.workers == "auto" else asked_for(settings, held)

    asked_for = run.workers_of
    monkeypatch.setattr(run, "workers_of", workers_of)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images and networks, which is not part of the repository."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real images of ../shared/data are not here")
    return REAL_DATA.resolve()
