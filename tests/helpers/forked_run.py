"""Runs of a study in processes that start at once: forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.process import BaseProcess
from pathlib import Path

from killed import results

_IMPORTED = [
    "voxplain.study.run",
    "distributed",
    "nibabel",
    "pandas",
    "pyarrow.compute",
    "safetensors.torch",
    "torch.fx.experimental.symbolic_shapes",  # which torch imports with its first gradient
]


def forked_run(file: Path, output: Path) -> BaseProcess:
    """The run of a study, in a process that has just begun."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    process = context.Process(target=_run, args=(file, output))
    process.start()
    return process


def finished(file: Path, output: Path) -> dict[str, bytes]:
    """The results of a run that nobody kills."""
    process = forked_run(file, output)
    process.join()
    assert process.exitcode == 0
    return results(output)


def _run(file: Path, output: Path) -> None:
    from voxplain.study import Study, run_study

    os.chdir(file.parent)
    raise SystemExit(run_study(Study.load(file), output=output).exit_code)
