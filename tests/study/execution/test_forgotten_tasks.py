"""A task that a cluster has lost track of is noticed, and one that waits its turn is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from voxplain.study.execution.executors import cluster
from voxplain.study.execution.executors.cluster import _ForgottenTask


class Held:
    """A cluster whose workers hold these tasks."""

    def __init__(self, **held: Sequence[str]) -> None:
        self.held = held

    def processing(self) -> Mapping[str, Sequence[str]]:
        return self.held


def looks(client: Held, monkeypatch: pytest.MonkeyPatch, seconds: int) -> list[int]:
    """The seconds at which a look calls the task ``mine`` forgotten."""
    now = [0.0]
    monkeypatch.setattr(cluster.time, "monotonic", lambda: now[0])
    watch, found = _ForgottenTask(client), []
    for second in range(1, seconds + 1):
        now[0] = float(second)
        if watch.is_forgotten("mine"):
            found.append(second)
    return found


def test_a_task_that_no_free_worker_has_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looks(Held(a=["other"], b=[]), monkeypatch, 25) == [10, 20]


@pytest.mark.parametrize(
    "client", [Held(a=["other"], b=["mine"]), Held(a=["other"], b=["another"]), Held()]
)
def test_a_task_at_work_or_without_free_workers_waits(
    client: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert looks(client, monkeypatch, 60) == []
