"""How worker processes start, tied to their parent from their first moments on.

Nothing heavy is imported here, so that this comes before seconds of imports.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import MutableSequence
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import current_process
from types import ModuleType
from typing import Any

_DIE = 1  # PR_SET_PDEATHSIG of Linux

_given: tuple[Any, ...] = ()


_LAUNCHING = threading.Lock()


class WorkerProcess(SpawnProcess):
    """A process that does not run the script of its parent again, and may have any parent.

    A spawned process runs the file of ``__main__`` first, which starts the study once more where
    a script has no ``if __name__ == "__main__"``; tasks need nothing of it. And a worker of a
    cluster, which counts as a daemon, is refused children, lest they outlive it; these do not.
    """

    def start(self) -> None:
        """Starts it."""
        config: dict[str, Any] = current_process()._config  # type: ignore[attr-defined]
        with _LAUNCHING:
            main, daemon = sys.modules["__main__"], config.get("daemon")
            sys.modules["__main__"], config["daemon"] = ModuleType("__main__"), False
            try:
                super().start()
            finally:
                sys.modules["__main__"], config["daemon"] = main, daemon


class WorkerContext(SpawnContext):
    """Starts worker processes."""

    Process = WorkerProcess


def begin(parent: int, numbers: MutableSequence[float], *given: Any) -> None:
    """Ties this process to its parent, and keeps what it was given for its tasks.

    Args:
        parent: Id of the process that watches this one.
        numbers: Shared with the parent; the second of them becomes the id of this process.
        given: What tasks get from :func:`given`.
    """
    global _given
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    numbers[1] = os.getpid()
    _given = (numbers, *given)


def given() -> tuple[Any, ...]:
    """What this process was given when it began."""
    return _given


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
