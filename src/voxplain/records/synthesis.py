"""The JSON beside synthesized images: what they drive, how they were made, and the verdicts."""

from __future__ import annotations

from typing import Any, Literal

from voxplain.records.record import Record
from voxplain.records.sidecar import GridFacts, ModelFacts


class ReliabilityItem(Record):
    """One item of a reliability panel.

    ``threshold`` says in words what passes; ``values`` are what it was decided on.
    """

    item: str
    verdict: Literal["pass", "fail", "not measured"]
    in_words: str
    threshold: str
    values: dict[str, Any] = {}


class ReliabilityRecord(Record):
    """The reliability panel of a synthesized image; ``exemplars`` are cases, strongest first."""

    schema_version: int = 1
    unit: str
    items: list[ReliabilityItem]
    caption: str
    exemplars: list[dict[str, Any]] = []
    bottom_exemplars: list[dict[str, Any]] = []
    settings: dict[str, Any] = {}


class SynthesizedImage(Record):
    """One of the images: its file, and what the unit answers to it.

    ``score`` is the objective without transforms, ``start`` the same of the start; ``cell`` the
    place in a grid of images.
    """

    name: str
    file: str
    score: float
    start: float
    peak: float
    cell: tuple[int, ...] = ()


class SynthesisRecord(Record):
    """Everything a reader needs to know about the images of one unit."""

    schema_version: int = 1
    method: str
    label: str
    meaning: str
    formula: str = ""
    paper: str = ""
    parameters: dict[str, Any]
    unit: str
    objective: dict[str, Any]
    model: ModelFacts
    grid: GridFacts
    channels: tuple[str, ...]
    images: list[SynthesizedImage]
    history: list[float]
    statistics: dict[str, Any] = {}
    findings: dict[str, Any] = {}
    seed: int
    seconds: float
    software: dict[str, str] = {}
    warnings: list[str] = []
    reliability: ReliabilityRecord | None = None
    figure: str = ""

    def to_json(self) -> str:
        """The record as indented JSON."""
        return self.model_dump_json(indent=2)
