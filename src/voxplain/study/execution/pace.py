"""How long the tasks that are left take, corrected by those that have ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

PaceKey = tuple[str, str]
"""The network of a task and its kind: what tasks take is corrected for each of these."""


@dataclass(frozen=True)
class ExpectedTask:
    """What a task is expected to take before any has ended.

    Attributes:
        of: The tasks that are as fast or slow as it, compared with what was expected.
        seconds: By the probe of its network.
    """

    of: PaceKey
    seconds: float


class Pace:
    """The seconds that are left of a run.

    Every task begins with the time that the probe of its network predicts. The tasks that have
    ended then correct those of the same network and kind; where none of these has ended yet, all
    that have ended do.

    Args:
        tasks: Those that are left, by what tells them apart.
        workers: How many work at them side by side.
    """

    def __init__(self, tasks: Mapping[Any, ExpectedTask], workers: int) -> None:
        self._tasks = dict(tasks)
        self._workers = max(1, workers)
        self._left: dict[PaceKey, float] = defaultdict(float)
        for task in self._tasks.values():
            self._left[task.of] += task.seconds
        self._expected: dict[PaceKey, float] = defaultdict(float)
        self._taken: dict[PaceKey, float] = defaultdict(float)

    def ended(self, task: Hashable, seconds: float) -> None:
        """Notes that a task has taken so many seconds; each task counts once."""
        expected = self._tasks.pop(task, None)
        if expected is None:
            return
        self._left[expected.of] -= expected.seconds
        self._expected[expected.of] += expected.seconds
        self._taken[expected.of] += seconds

    @property
    def left(self) -> float:
        """Seconds until all tasks are done; 0 if none is left."""
        if not self._tasks:
            return 0.0
        overall = _ratio(sum(self._taken.values()), sum(self._expected.values()), 1.0)
        total = sum(
            seconds * _ratio(self._taken[of], self._expected[of], overall)
            for of, seconds in self._left.items()
        )
        return max(0.0, total) / min(self._workers, len(self._tasks))


def _ratio(taken: float, expected: float, otherwise: float) -> float:
    return taken / expected if expected > 0 else otherwise
