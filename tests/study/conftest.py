from __future__ import annotations

from pathlib import Path

import pytest
from tiny import TinyStudy, write_tiny


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyStudy:
    """A study of two small volumes and a network that finds bright voxels."""
    return write_tiny(tmp_path / "work", monkeypatch)
