"""The time limit of a task, and why a task failed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import FrameType

from voxplain.errors import VoxplainError, VoxplainWarning, is_out_of_memory
from voxplain.models.failures import quoted

TimeLimit = Callable[[float | None], AbstractContextManager[None]]
"""Opens a block that is ended with a TimeoutError after so many seconds; None for no limit."""


def can_limit_time() -> bool:
    """Whether a running task of this process can be ended: on POSIX, in the main thread."""
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Ends a block of the main thread after so many seconds, once the network call it is in ends.

    In another thread, and where there are no POSIX timers, it warns that there is no limit.

    Raises:
        TimeoutError: Inside the block, when the time is over.
    """
    if seconds is None:
        yield
        return
    if not can_limit_time():
        text = "a time limit needs the main thread of a POSIX system; this run has none"
        warnings.warn(text, VoxplainWarning, stacklevel=3)
        yield
        return
    previous = signal.signal(signal.SIGALRM, _time_is_over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def reason_of(error: BaseException, limit: float | None) -> str:
    """Why a task failed, in words.

    What code outside of voxplain and torch raised is named by its type, also where it is an error
    of voxplain: its text may hold paths and names.

    Args:
        error: What the task raised.
        limit: The time limit that was set, in seconds.
    """
    if isinstance(error, VoxplainError) and not _is_foreign(error):
        return _without_foreign_words(error)
    if is_out_of_memory(error):
        return "out of memory, also with the smallest chunks; use a window, or a smaller one"
    if isinstance(error, TimeoutError) and limit is not None:
        return f"not done after its time limit of {in_words(limit)}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{type(error).__name__}: {os.strerror(error.errno).lower()}"
    return f"{type(error).__name__} (voxplain --debug shows where)"


def _without_foreign_words(error: VoxplainError) -> str:
    """The text of an error without what it quotes of errors that come from elsewhere."""
    text = str(error)
    cause: BaseException | None = error.__cause__
    while cause is not None:
        if _is_foreign(cause):
            name = type(cause).__name__
            text = text.replace(quoted(cause), name).replace(f"{name}: {cause}", name)
        cause = cause.__cause__
    return text


def _is_foreign(error: BaseException) -> bool:
    """Whether an error was raised by code outside of voxplain and torch."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    module = str(frames[-1].f_globals.get("__name__")) if frames else "voxplain"
    return module.partition(".")[0] not in ("voxplain", "torch")


def in_words(seconds: float) -> str:
    """A duration as a person says it: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _time_is_over(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError("the time limit is over")
