"""The command line. torch is imported only by the commands that need it."""

from __future__ import annotations

from voxplain.cli import (  # noqa: F401 - they register
    evaluate,
    explain,
    export,
    inside,
    inspect,
    runs,
    studies,
    system,
)
from voxplain.cli.app import app


def main() -> None:
    """Runs ``voxplain``."""
    app(prog_name="voxplain")


__all__ = ["app", "main"]
