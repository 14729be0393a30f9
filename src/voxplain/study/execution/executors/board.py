"""Numbers that a worker process shows to the process that watches it.

They are in shared memory and need no lock, so that a worker that is killed leaves nothing locked.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from multiprocessing.context import BaseContext
from typing import Any

WHOLE_TASK = -1
"""In place of the number of a part."""


def _number(place: int, doc: str) -> Any:
    def read(board: Board) -> float:
        return float(board.values[place])

    def write(board: Board, value: float) -> None:
        board.values[place] = value

    return property(read, write, doc=doc)


class Board:
    """Shared numbers of one worker process.

    Args:
        values: Five numbers in shared memory; see :meth:`in_shared_memory`.
    """

    deadline: float = _number(0, "When the present step has to end, on the monotonic clock; or 0.")
    process: float = _number(1, "Id of the worker process; 0 before it has started.")
    part: float = _number(2, "Number of the part of the task that is being done.")
    done: float = _number(3, "Passes of the task, or its metrics, that are done.")
    planned: float = _number(4, "Passes of the task, or its metrics, that there are.")

    def __init__(self, values: MutableSequence[float]) -> None:
        self.values = values

    @classmethod
    def in_shared_memory(cls, context: BaseContext) -> Board:
        """A board that the processes of a context can see."""
        return cls(context.RawArray("d", 5))

    def begin(self) -> None:
        """Says that a task begins."""
        self.deadline = self.done = self.planned = 0.0
        self.part = WHOLE_TASK
