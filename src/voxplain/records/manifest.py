"""What a run directory says of itself: cases, models, tasks, predictions and maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from voxplain.records.record import Record

Status = Literal["pending", "done", "failed"]


class CaseRecord(Record):
    """One case; paths are relative to the run directory, the source file is known by hash only.

    ``image`` is a de-identified copy of the source channels (NIfTI, source grid); ``reference``
    likewise, where the study names one. ``patient`` is as written in the study, None if the case
    stands for itself.
    """

    id: str
    patient: str | None = None
    image_sha256: str
    image: str
    reference: str | None = None
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    unit: Literal["mm", "pixel"]
    orientation: str
    channels: tuple[str, ...]
    warnings: list[str] = []


class ModelRecord(Record):
    """One network.

    Attributes:
        labels: One that was trained on permuted labels is only compared with.
        explained: Whether it is explained itself.
    """

    name: str
    weights_sha256: str
    parameters: int
    precision: str = "float32"
    head: str | None = None
    window: dict[str, Any] | None = None
    labels: Literal["true", "permuted"] = "true"
    explained: bool = True


class PredictionRecord(Record):
    """What a model says of a case, and what is asked of it.

    ``image`` is the label map of a dense output on the source grid (``<case>_<model>_pred``),
    None for a classifier; ``scores`` are class scores or ``volumes`` class volumes (mL, or pixels
    where the physical size is unknown), keyed by class name. ``key`` is the hash of everything
    that determines it.
    """

    case: str
    model: str
    target: str
    in_words: str
    score: float
    probability: float | None = None
    image: str | None = None
    scores: dict[str, float] = {}
    volumes: dict[str, float] = {}
    volume_unit: str = "mL"
    key: str = ""


class MapRecord(Record):
    """One map: NIfTI and sidecar relative to the run directory.

    ``key`` is the hash of everything that determines the maps of this method.
    """

    case: str
    model: str
    target: str
    label: str
    method: str
    layer: str | None = None
    file: str
    sidecar: str
    key: str = ""


class TaskRecord(Record):
    """One group of methods that shared a stream; or the metrics on the maps of one subject.

    ``methods`` are the keys of the maps, or the names of the metrics.
    """

    key: str
    case: str
    model: str
    target: str
    methods: list[str]
    kind: Literal["maps", "metrics"] = "maps"
    status: Status = "pending"
    reason: str | None = None
    passes: int = 0
    seconds: float = 0.0
    warnings: list[str] = []


class Manifest(Record):
    """``manifest.json`` of a run directory."""

    schema_version: int = 1
    software: dict[str, str]
    device: str
    seed: int
    study_sha256: str
    cases: list[CaseRecord] = []
    models: list[ModelRecord] = []
    predictions: list[PredictionRecord] = []
    tasks: list[TaskRecord] = []
    maps: list[MapRecord] = []
    warnings: list[str] = []
    seconds: float = 0.0

    @classmethod
    def read(cls, run: Path) -> Manifest:
        """The manifest of a run directory."""
        return cls.model_validate_json((run / "manifest.json").read_text(encoding="utf-8"))

    @property
    def failed(self) -> list[TaskRecord]:
        """The tasks that did not finish, each with its reason."""
        return [task for task in self.tasks if task.status == "failed"]
