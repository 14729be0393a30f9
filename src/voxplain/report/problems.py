"""What could not be read or drawn, in words."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from voxplain.errors import VoxplainError


@dataclass(frozen=True)
class Problem:
    """Something that could not be shown, and why."""

    what: str
    why: str


def reason(error: Exception) -> str:
    """An error in words, without paths."""
    if isinstance(error, FileNotFoundError):
        return "its file is missing"
    if isinstance(error, VoxplainError):
        return str(error)
    return f"its file cannot be read ({type(error).__name__})"


UNREADABLE = (OSError, ValueError, EOFError, zlib.error)
"""What a missing, truncated or foreign file raises."""
