"""The one table of all scores: a row per case, model, target, map and metric."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from voxplain.records.atomic import atomic_write


@dataclass(frozen=True)
class Score:
    """One number and everything needed to read it.

    Attributes:
        metric: Its name.
        method: The key of the map, or the name of a control; empty for what is about the network
            itself.
        value: NaN where it is undefined.
        direction: ``up`` or ``down`` is better, or ``none``.
        minimum: Smallest possible value, None where unbounded.
        maximum: Largest possible value.
        unit: Empty for pure numbers.
        control: Whether the map is a control and not an explanation.
        reason: Why a value is undefined.
        passes: Forwards it took beyond those that other scores share.
        case: Id of the image; ``seed`` and the names of model and target with it.
        parameters: Of the metric.
        facts: Chosen levels, counts.
        curve: Points it is the area or mean of.
        family: The chapter its metric belongs to.
        meaning: Of the metric, one line in plain words.
        patient: Whose image it is; empty where the case stands for itself.
        correct: Whether the prediction was right; None where the truth is not known.
    """

    metric: str
    method: str
    value: float
    direction: str
    minimum: float | None = None
    maximum: float | None = None
    unit: str = ""
    control: bool = False
    reason: str = ""
    passes: int = 0
    case: str = ""
    model: str = ""
    target: str = ""
    seed: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    curve: tuple[tuple[float, float], ...] = ()
    family: str = ""
    meaning: str = ""
    patient: str = ""
    correct: bool | None = None

    @property
    def whose(self) -> str:
        """What is resampled as a whole: the patient, or the case itself."""
        return self.patient or self.case


_NESTED = ("parameters", "facts", "curve")


@dataclass(frozen=True)
class Scores:
    """A long table of scores.

    Example:
        >>> table = Scores((Score("gini", "saliency", 0.5, "up"),))
        >>> table.of(metric="gini").values()
        [0.5]
    """

    rows: tuple[Score, ...] = ()

    def __iter__(self) -> Iterator[Score]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __add__(self, other: Scores) -> Scores:
        return Scores(self.rows + other.rows)

    def of(
        self,
        metric: str | None = None,
        method: str | None = None,
        case: str | None = None,
        control: bool | None = None,
    ) -> Scores:
        """The rows that fit all that is given."""
        wanted = {"metric": metric, "method": method, "case": case, "control": control}
        asked = {name: value for name, value in wanted.items() if value is not None}
        return Scores(
            tuple(
                row
                for row in self.rows
                if all(getattr(row, name) == value for name, value in asked.items())
            )
        )

    def values(self) -> list[float]:
        """The numbers, in order."""
        return [row.value for row in self.rows]

    def value(self, metric: str, method: str) -> float:
        """The number of one metric and map, where there is one case.

        Raises:
            KeyError: If there is none, or more than one.
        """
        found = self.of(metric=metric, method=method).values()
        if len(found) != 1:
            raise KeyError(f"{len(found)} scores of {metric} for {method}")
        return found[0]

    def to_records(self) -> list[dict[str, Any]]:
        """One flat mapping per row; what is nested becomes JSON text."""
        return [
            {
                name: json.dumps(part) if name in _NESTED else part
                for name, part in asdict(row).items()
            }
            for row in self.rows
        ]

    def write(self, path: Path) -> None:
        """Writes a Parquet table; it appears whole or not at all."""
        import pyarrow
        from pyarrow import parquet

        records = self.to_records()
        names = [part.name for part in fields(Score)]
        columns = {name: [record[name] for record in records] for name in names}
        buffer = pyarrow.BufferOutputStream()
        parquet.write_table(pyarrow.table(columns), buffer)
        atomic_write(path, buffer.getvalue().to_pybytes())

    def export(self, path: Path) -> None:
        """Writes the table for other programs: ``.csv``, or else Parquet."""
        if path.suffix.lower() != ".csv":
            self.write(path)
            return
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, [part.name for part in fields(Score)])
        writer.writeheader()
        writer.writerows(self.to_records())
        atomic_write(path, text.getvalue())

    @classmethod
    def read(cls, path: Path) -> Scores:
        """Reads a table that :meth:`write` has written."""
        from pyarrow import parquet

        return cls.of_records(parquet.read_table(path).to_pylist())

    @classmethod
    def of_records(cls, records: Iterable[Mapping[str, Any]]) -> Scores:
        """The table of what :meth:`to_records` gave."""
        return cls(tuple(_row(record) for record in records))

    @classmethod
    def joined(cls, parts: Iterable[Scores]) -> Scores:
        """Several tables as one."""
        return cls(tuple(row for part in parts for row in part.rows))


def _row(record: Mapping[str, Any]) -> Score:
    known = {part.name for part in fields(Score)}
    values = {name: value for name, value in record.items() if name in known}
    for name in _NESTED:
        values[name] = json.loads(values.get(name) or "null")
    values["curve"] = tuple((x, y) for x, y in values["curve"] or ())
    return Score(**values)
