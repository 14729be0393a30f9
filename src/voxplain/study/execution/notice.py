"""The command that is run when a run ends."""

from __future__ import annotations

import json
import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path

from voxplain.errors import VoxplainWarning
from voxplain.records.manifest import Manifest

_LIMIT = 60
"""Seconds."""


def notify(command: Sequence[str], run: Path, manifest: Manifest) -> None:
    """Runs a command with a summary of a run as JSON on its standard input; no shell is involved.

    A command that fails, or takes more than a minute, is a warning: the run is done.
    """
    failures = [
        {"case": task.case, "model": task.model, "methods": task.methods, "reason": task.reason}
        for task in manifest.failed
    ]
    summary = {
        "run": str(run),
        "done": sum(task.status == "done" for task in manifest.tasks),
        "failed": failures,
        "pending": len(manifest.pending),
        "seconds": manifest.seconds,
    }
    try:
        subprocess.run(command, input=json.dumps(summary), text=True, timeout=_LIMIT, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        text = f"run.notify: {command[0]} did not work ({type(error).__name__})"
        warnings.warn(text, VoxplainWarning, stacklevel=3)
