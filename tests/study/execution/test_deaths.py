"""What is said of a worker that was killed from outside, and how its task is tried again."""

from __future__ import annotations

import pytest

from voxplain.processes import WorkerContext
from voxplain.study.execution.executors import isolated
from voxplain.study.execution.executors.board import Board


@pytest.mark.parametrize(
    ("kills", "kind"), [([4, 4], "crash"), ([4, 5], "memory"), ([None, None], "memory")]
)
def test_only_a_system_without_memory_halves_the_batches(
    monkeypatch: pytest.MonkeyPatch, kills: list[int | None], kind: str
) -> None:
    """Another batch rounds otherwise, which the kill of a healthy process must not lead to."""
    monkeypatch.setattr(isolated, "_out_of_memory_kills", lambda: kills.pop(0))
    watch = isolated._Watch(Board.in_shared_memory(WorkerContext()), None, None)
    death = watch.death(-9)
    assert death.kind == kind
    assert "killed from outside (SIGKILL)" in death.reason
    assert ("memory runs out" in death.reason) == (kind == "memory")
