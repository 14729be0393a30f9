"""The errors a person sees: what was wrong, where, and what would work."""

from __future__ import annotations

import contextlib
import difflib
import threading
import warnings
from collections.abc import Iterable, Iterator


class VoxplainError(Exception):
    """Anything wrong with a request; the command line prints it and exits with code 2."""


class RunError(VoxplainError):
    """A run that had to stop; what is finished is kept. The command line exits with code 1."""


class InputError(VoxplainError):
    """A file or an image that cannot be used as it is."""


class ConfigError(VoxplainError):
    """A study, a parameter or a method name that does not exist or does not fit."""


class ModelError(VoxplainError):
    """A network, its weights, its layers or its output."""


class TargetError(VoxplainError):
    """A target that cannot be bound to this output: absent class, empty region, NaN score."""


class RuleError(VoxplainError):
    """A function that a backward rule must treat and cannot."""


class Undefined(VoxplainError):  # noqa: N818 - a state of a score, not a failure
    """Raised where a score does not exist; the message says why."""


class VoxplainWarning(UserWarning):
    """Something the reader of a result should know; collected into sidecars and reports."""


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine or the accelerator had too little memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY)


_WARNING_FILTERS = threading.RLock()


@contextlib.contextmanager
def without_warnings(category: type[Warning] = Warning) -> Iterator[None]:
    """Ignores warnings of other libraries; such blocks of several threads take turns.

    Filters belong to the process: the first of two threads to leave would put back the filters of
    the second one.
    """
    with _WARNING_FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """A sentence part that offers the known names closest to a mistyped one.

    Args:
        name: What was asked for.
        known: What exists.
        count: How many suggestions at the most.

    Returns:
        ``"did you mean a or b?"``, or the list of known names when none is close.
    """
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=count, cutoff=0.5)
    if close:
        best = _likeness(name, close[0])
        close = [option for option in close if _likeness(name, option) >= best - _FAR]
        return f"did you mean {' or '.join(close)}?"
    shown = ", ".join(options[:12]) + (", …" if len(options) > 12 else "")
    return f"known: {shown}" if options else "there are none"


_FAR = 0.2
"""Suggestions that are so much less alike than the best one only distract from it."""


def _likeness(name: str, other: str) -> float:
    return difflib.SequenceMatcher(None, other, name).ratio()
