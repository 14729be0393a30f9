"""The command line. torch is imported only by the commands that need it."""

from __future__ import annotations

from voxplain.cli import evaluate, explain, inspect, runs, studies, system  # noqa: F401 - they register
from voxplain.cli.app import app


def main() -> None:
    """Runs ``voxplain``."""
    app(prog_name="voxplain")


__all__ = ["app", "main"]
