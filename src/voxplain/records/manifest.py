"""What a run directory says of itself: cases, models, tasks, predictions and maps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from voxplain.records.record import Record

Status = Literal["pending", "done", "failed"]


def _inside(path: str) -> str:
    """Refuses a path that leads out of the run directory."""
    if PureWindowsPath(path).anchor or path.startswith("/") or ".." in re.split(r"[\\/]", path):
        raise ValueError(f"{path!r} leads out of the run directory")
    return path


RunFile = Annotated[str, AfterValidator(_inside)]
"""A file of a run, relative to its directory."""


class CaseRecord(Record):
    """One case; paths are relative to the run directory, the source file is known by hash only.

    ``image`` is a de-identified copy of the source channels (NIfTI, source grid); ``reference``
    likewise, where the study names one. ``patient`` is as written in the study, None if the case
    stands for itself. ``reference_sha256`` is the hash of the reference as the study names it,
    ``reference_ignore`` the label in it that marks voxels of which it says nothing.
    """

    id: str
    patient: str | None = None
    image_sha256: str
    image: RunFile
    reference: RunFile | None = None
    reference_sha256: str | None = None
    reference_ignore: int | None = None
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    unit: Literal["mm", "pixel"]
    orientation: str
    channels: tuple[str, ...]
    warnings: list[str] = []


class FamilyPrecision(Record):
    """The precision in which the passes of a family ran.

    A family are the streams of one network under one rule (``gradients``, ``guided``, ``lrp``, and
    so on), its streams of ``masks``, or the images that ``metrics`` score.

    Attributes:
        precision: Several are joined by "and".
        agreement: The smallest agreement with float32 of the lower precision that was asked for;
            None where none was tried.
    """

    precision: str
    agreement: float | None = None

    @classmethod
    def joined(cls, parts: Sequence[FamilyPrecision]) -> FamilyPrecision:
        """That of several streams."""
        names = [name for part in parts for name in part.precision.split(" and ")]
        found = [part.agreement for part in parts if part.agreement is not None]
        return cls(precision=" and ".join(dict.fromkeys(names)), agreement=min(found, default=None))

    @classmethod
    def by_family(cls, parts: Iterable[tuple[str, FamilyPrecision]]) -> dict[str, FamilyPrecision]:
        """Those of several streams, by the name of their family."""
        families: dict[str, list[FamilyPrecision]] = {}
        for name, part in parts:
            families.setdefault(name, []).append(part)
        return {name: cls.joined(of_family) for name, of_family in families.items()}


class ModelRecord(Record):
    """One network.

    Attributes:
        precision: That of the passes behind its maps, several joined by "and"; empty where there
            are no maps.
        families: The precision of every family of passes, with its agreement with float32.
        labels: One that was trained on permuted labels is only compared with.
        explained: Whether it is explained itself.
        definition: Hash of its factory, arguments and code.
        fingerprint: Hash of what it answers to a fixed pattern.
        probe: ``(C, *spatial)`` of the pattern.
    """

    name: str
    weights_sha256: str
    parameters: int
    precision: str = ""
    families: dict[str, FamilyPrecision] = {}
    head: str | None = None
    window: dict[str, Any] | None = None
    labels: Literal["true", "permuted"] = "true"
    explained: bool = True
    definition: str = ""
    fingerprint: str = ""
    probe: tuple[int, ...] = ()


class PredictionRecord(Record):
    """What a model says of a case, and what is asked of it.

    ``image`` is the label map of a dense output on the source grid (``<case>_<model>_pred``),
    None for a classifier; ``scores`` are class scores or ``volumes`` class volumes (mL, or pixels
    where the physical size is unknown), keyed by class name. ``key`` is the hash of everything
    that determines it, ``parts`` short hashes of what this is made of, in words.
    """

    case: str
    model: str
    target: str
    in_words: str
    score: float
    probability: float | None = None
    image: RunFile | None = None
    scores: dict[str, float] = {}
    volumes: dict[str, float] = {}
    volume_unit: str = "mL"
    key: str = ""
    parts: dict[str, str] = {}


class MapRecord(Record):
    """One map: NIfTI and sidecar relative to the run directory.

    ``key`` is the hash of everything that determines the maps of this method. ``precision`` is
    that in which its passes ran, ``families`` the same by family of passes.
    """

    case: str
    model: str
    target: str
    label: str
    method: str
    layer: str | None = None
    file: RunFile
    sidecar: RunFile
    key: str = ""
    precision: str = ""
    families: dict[str, FamilyPrecision] = {}


class TaskRecord(Record):
    """One group of methods that shared a stream; or the metrics on the maps of one subject.

    ``methods`` are the keys of the maps, or the names of the metrics. ``attempts`` counts the
    worker processes that began it: the second one takes half as many images at a time where memory
    ran out. ``families`` is the precision in which metrics scored changed images, where another
    one than float32 was asked for.
    """

    key: str
    case: str
    model: str
    target: str
    methods: list[str]
    kind: Literal["maps", "metrics", "prediction", "analysis"] = "maps"
    status: Status = "pending"
    reason: str | None = None
    passes: int = 0
    seconds: float = 0.0
    attempts: int = 1
    families: dict[str, FamilyPrecision] = {}
    warnings: list[str] = []


class AnalysisRecord(Record):
    """An analysis of a network over the cases.

    ``name`` is that of the declaration, ``label`` that in results, ``folder`` that of its files
    within the run.
    """

    model: str
    target: str = ""
    name: str
    label: str
    folder: str
    cases: list[str]
    key: str


class Manifest(Record):
    """``manifest.json`` of a run directory.

    While tasks run it is as it was when they began; :func:`voxplain.records.outcome.read_manifest`
    adds what has come of them since. ``seals`` tell whether files are still as they were written.
    """

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
    analyses: list[AnalysisRecord] = []
    seals: dict[str, str] = {}
    warnings: list[str] = []
    seconds: float = 0.0

    @classmethod
    def read(cls, run: Path) -> Manifest:
        """The file in a run directory.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is damaged or of another version.
        """
        return cls.model_validate_json((run / "manifest.json").read_bytes())

    @property
    def failed(self) -> list[TaskRecord]:
        """The tasks that did not finish, each with its reason."""
        return [task for task in self.tasks if task.status == "failed"]

    @property
    def pending(self) -> list[TaskRecord]:
        """The tasks that no process has come to the end of."""
        return [task for task in self.tasks if task.status == "pending"]
