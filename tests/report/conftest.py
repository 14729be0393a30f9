from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_runs import head_run, picture_run

from voxplain.report import render


@pytest.fixture(scope="session")
def head_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered run of two 3-D cases."""
    folder = head_run(tmp_path_factory.mktemp("head"))
    render(folder)
    return folder


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered run of one color picture."""
    folder = picture_run(tmp_path_factory.mktemp("picture"))
    render(folder)
    return folder
