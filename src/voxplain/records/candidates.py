"""What predictions hold that targets can be made for, kept in a run so that it is found once."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from pydantic import RootModel

from voxplain.records.atomic import atomic_write
from voxplain.records.record import Record

CANDIDATES = ".candidates.json"
"""File of a run directory with the candidates of all cases."""


class Candidates(Record):
    """The components, or classes, of one prediction.

    Attributes:
        sizes: Positions of the output that each has, by its number: the rank of a component, or
            a class. The largest comes first; of a classifier, the class with the largest score.
        refused: Why some cannot be explained, by number.
        volume: Of one position, in mm³ (mm² in 2-D); None where it is not known.
        axes: Spatial axes of the output, 0 for a classifier.
    """

    sizes: dict[int, int] = {}
    refused: dict[int, str] = {}
    volume: float | None = None
    axes: int = 0


class _File(RootModel[dict[str, Candidates]]):
    """By the hash of everything that determines them."""


def read_candidates(run: Path) -> dict[str, Candidates]:
    """The candidates that a run has kept, by the hash of everything that determines them."""
    with contextlib.suppress(OSError, ValueError):
        return _File.model_validate_json((run / CANDIDATES).read_bytes()).root
    return {}


def write_candidates(run: Path, candidates: Mapping[str, Candidates]) -> None:
    """Replaces the candidates that a run keeps; without any there is no file."""
    if candidates:
        text = _File(dict(candidates)).model_dump_json(exclude_defaults=True)
        atomic_write(run / CANDIDATES, text)
    else:
        (run / CANDIDATES).unlink(missing_ok=True)
