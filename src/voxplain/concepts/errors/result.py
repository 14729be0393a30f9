"""The errors of a network over a cohort, with their causes and corrections."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from voxplain.concepts.errors.labeled_case import ErrorComponent
from voxplain.records.atomic import atomic_write
from voxplain.records.error_causes import ErrorCausesRecord


@dataclass(frozen=True, eq=False)
class ErrorCauses:
    """The errors of a network over a cohort, their causes, and what corrects them.

    Attributes:
        record: All that was found, as it is written.
        errors: The components, for drawing.
    """

    record: ErrorCausesRecord
    errors: tuple[ErrorComponent, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was found, in plain words."""
        return tuple(self.record.sentences)

    def save(self, folder: str | Path) -> Path:
        """Writes ``error_causes.json`` into a folder, which is made where it does not exist."""
        text = self.record.model_dump_json(indent=2) + "\n"
        return atomic_write(Path(folder) / "error_causes.json", text)
