"""What came of a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from voxplain.records.manifest import (
    AnalysisRecord,
    FamilyPrecision,
    MapRecord,
    PredictionRecord,
)
from voxplain.records.scores import Scores
from voxplain.study.planning.tasks import TaskId


@dataclass(frozen=True)
class TaskResult:
    """What came of a task; its files are in the run directory.

    Attributes:
        id: Of the task.
        reason: Why it failed, without private words; empty if it is done.
        warnings: What the reader of the results should know, once each.
        seconds: Time it took, without loading images and networks.
        attempts: How many processes began it.
        predictions: Records of the predictions it made.
        maps: Records of the maps it wrote.
        analyses: Records of the analyses it made.
        scores: The scores it computed.
        seals: Of the files it wrote.
        families: The precision in which metrics scored, where a lower one was asked for.
        log: Tracebacks of what failed, as they are, for the terminal.
        stack: Where it failed, for the run directory.
        out_of_memory: Whether it failed for want of memory.
        unwritable: Why the run directory takes no files; empty if it does.
    """

    id: TaskId
    reason: str = ""
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    attempts: int = 1
    predictions: tuple[PredictionRecord, ...] = ()
    maps: tuple[MapRecord, ...] = ()
    analyses: tuple[AnalysisRecord, ...] = ()
    scores: Scores = field(default_factory=Scores)
    seals: Mapping[str, str] = field(default_factory=dict)
    families: Mapping[str, FamilyPrecision] = field(default_factory=dict)
    log: str = ""
    stack: str = ""
    out_of_memory: bool = False
    unwritable: str = ""
