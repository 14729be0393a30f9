"""The first moments of a worker process: it dies with its parent from then on.

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
from typing import Any

_DIE = 1  # PR_SET_PDEATHSIG of Linux

_given: tuple[Any, ...] = ()


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
