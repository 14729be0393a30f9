"""Files of a run that could not be read, in words."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from voxplain.errors import VoxplainError


@dataclass(frozen=True)
class Problem:
    """Something that cannot be shown, and why."""

    what: str
    why: str


def reason(error: Exception) -> str:
    """Why a file cannot be read, in words and without its path."""
    if isinstance(error, FileNotFoundError):
        return "its file is missing"
    if isinstance(error, VoxplainError):
        return str(error)
    return f"its file cannot be read ({type(error).__name__})"


UNREADABLE = (OSError, ValueError, EOFError, zlib.error)
"""Exceptions of missing, truncated and foreign files."""
