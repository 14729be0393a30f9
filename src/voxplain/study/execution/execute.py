"""Doing one task in this process, and writing down what came of it."""

from __future__ import annotations

import errno
import os
import time
import traceback
from dataclasses import replace
from pathlib import Path

from voxplain.errors import is_out_of_memory
from voxplain.records.atomic import atomic_write
from voxplain.records.outcome import TaskOutcome, outcome_file
from voxplain.study.execution.progress import OfWorker, TaskListener
from voxplain.study.execution.resources import LoadedResources
from voxplain.study.execution.specs.result import TaskResult
from voxplain.study.execution.specs.spec import TaskSpec
from voxplain.study.planning.exits import no_exit
from voxplain.study.planning.messages import collected_warnings
from voxplain.study.planning.time_limit import TimeLimit, reason_of, time_limit

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def execute(
    spec: TaskSpec,
    resources: LoadedResources,
    listener: TaskListener | None = None,
    limited: TimeLimit = time_limit,
) -> TaskResult:
    """Does one task in this process and writes its outcome; a failure ends in the result.

    Args:
        spec: The task, with the results of those it comes after.
        resources: Networks and images that this process keeps from task to task.
        listener: Callbacks while it runs.
        limited: How the time limit is kept here.
    """
    failures = _Failures(listener or OfWorker())
    texts: list[str] = []
    start = time.perf_counter()
    try:
        with collected_warnings([]):  # these were given when the study was checked
            spec.load(resources)
        start = time.perf_counter()
        with collected_warnings(texts), no_exit():
            result = spec.perform(resources, failures, limited)
    except Exception as error:
        failures.failed(error)
        result = TaskResult(
            spec.id,
            reason=spec.private(reason_of(error, spec.limit)),
            out_of_memory=is_out_of_memory(error),
            unwritable=_unwritable(error),
        )
    seconds = round(time.perf_counter() - start, 3)
    result = replace(result, warnings=tuple(texts), seconds=seconds)
    result = replace(result, log=failures.text, stack=failures.stack)
    return written(spec, result)


def written(spec: TaskSpec, result: TaskResult) -> TaskResult:
    """The result of a task, once its outcome and the log of its failures are in the run directory.

    Args:
        spec: The task.
        result: What came of it; its words are those of the user until here.
    """
    record = spec.pending.model_copy(
        update={
            "status": "failed" if result.reason else "done",
            "reason": spec.private(result.reason) or None,
            "seconds": result.seconds,
            "warnings": [spec.private(text) for text in result.warnings],
            "attempts": result.attempts,
            "families": dict(result.families),
        }
    )
    outcome = TaskOutcome(
        task=record,
        predictions=[*result.predictions],
        maps=[*result.maps],
        analyses=[*result.analyses],
        scores=result.scores.to_records(),
        seals=dict(result.seals),
    )
    try:
        outcome.write(spec.folder)
        log = outcome_file(spec.folder, record).with_suffix(".log")
        if result.stack:
            atomic_write(log, spec.private(result.stack))
        else:
            log.unlink(missing_ok=True)
    except OSError as error:
        reason = result.reason or f"its outcome could not be written: {reason_of(error, None)}"
        return replace(result, reason=reason, unwritable=_unwritable(error) or str(error.strerror))
    return result


class _Failures:
    """Passes callbacks on, and keeps the traceback of every failure."""

    def __init__(self, listener: TaskListener) -> None:
        self._listener = listener
        self.text = self.stack = ""

    def passed(self, done: int, planned: int) -> None:
        self._listener.passed(done, planned)

    def began(self, part: int) -> None:
        self._listener.began(part)

    def failed(self, error: Exception) -> None:
        self.text += "".join(traceback.format_exception(error))
        self.stack += _stack(error)
        self._listener.failed(error)


def _stack(error: BaseException) -> str:
    """Where an error and its causes were raised, without their texts and without lines of code.

    Both may hold what does not belong into a run directory.
    """
    cause = error.__cause__ or error.__context__
    before = _stack(cause) if cause is not None else ""
    frames = traceback.extract_tb(error.__traceback__)
    places = "".join(f"  {Path(at.filename).name}:{at.lineno} in {at.name}\n" for at in frames)
    return f"{before}{places}{reason_of(error, None)}\n\n"


def _unwritable(error: BaseException) -> str:
    """Why a run directory takes no files, if that is what an error says."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _UNWRITABLE:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return ""
