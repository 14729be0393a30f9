"""Records of compositional explanations: the formula of every unit, and of bands of its values."""

from __future__ import annotations

from pathlib import Path

from voxplain.records.atomic import atomic_write
from voxplain.records.names import safe
from voxplain.records.record import Record

UNNAMED = "unnamed"
_ENDING = ".formulas.json"


class FormulaFound(Record, frozen=True):
    """The formula over concepts that agrees most with a unit.

    Attributes:
        unit: Name of the unit.
        band: Number of the band of its values, the lowest being 0; None for the unit as a whole.
        low: Smallest activation of the band, or the threshold of the unit.
        high: Activation at which the band ends; None for no end.
        formula: In words; ``unnamed`` where none reaches the smallest IoU on held-out cases.
        best: The best formula on the selection cases, however low its IoU.
        length: Concepts in it.
        selection_iou: On the cases on which it was chosen.
        iou: On held-out cases.
        interval: 95 % bootstrap interval of it over patients; None below 8 patients.
    """

    unit: str
    band: int | None = None
    low: float | None = None
    high: float | None = None
    formula: str = UNNAMED
    best: str = ""
    length: int = 0
    selection_iou: float | None = None
    iou: float | None = None
    interval: tuple[float, float] | None = None


class FormulasRecord(Record, frozen=True):
    """Compositional explanations of the units of one network.

    Attributes:
        model: Name of the network.
        concepts: Of which formulas are made.
        smallest_iou: What a formula needs on held-out cases to be a name.
        searched: Number of formulas that every unit was compared with.
        units: One per unit.
        bands: One per unit and band.
        remarks: What a reader should know.
    """

    schema_version: int = 1
    model: str
    concepts: tuple[str, ...]
    smallest_iou: float
    searched: int
    units: tuple[FormulaFound, ...]
    bands: tuple[FormulaFound, ...] = ()
    remarks: tuple[str, ...] = ()


def write_formulas(run: Path, record: FormulasRecord) -> Path:
    """Writes ``dissection/<model>.formulas.json``."""
    path = Path(run) / "dissection" / f"{safe(record.model)}{_ENDING}"
    return atomic_write(path, record.model_dump_json(indent=1))


def read_formulas(run: Path) -> list[FormulasRecord]:
    """All compositional explanations of a run, sorted by file name."""
    files = sorted((Path(run) / "dissection").glob(f"*{_ENDING}"))
    texts = (file.read_text(encoding="utf-8") for file in files)
    return [FormulasRecord.model_validate_json(text) for text in texts]
