"""Shared by all tests: few threads, and the folder of real data where it is present."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch is imported: the suite runs in several processes on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

REAL_DATA = Path(__file__).parents[1] / "../shared/data"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images and networks, which is not part of the repository."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real images of ../shared/data are not here")
    return REAL_DATA.resolve()
