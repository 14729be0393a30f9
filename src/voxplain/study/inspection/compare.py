"""Which maps of two runs differ, and by how much."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np

from voxplain.errors import InputError
from voxplain.records.manifest import MapRecord
from voxplain.study.execution.store import Store

_Name = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class MapDifference:
    """How the maps of one name differ between two runs.

    Attributes:
        case: Id of the case.
        model: Name of the network.
        target: Slug of the target.
        label: Of the map, with its layer.
        state: ``same`` if all voxels are; ``different``; ``shape`` if they lie on other grids;
            ``first`` or ``second`` if only this run has one.
        cosine: Cosine of the angle between the maps; None unless they are ``different``.
        largest: Largest difference of a voxel, relative to the largest value of the first map.
    """

    case: str
    model: str
    target: str
    label: str
    state: Literal["same", "different", "shape", "first", "second"]
    cosine: float | None = None
    largest: float | None = None


def compare_runs(first: str | Path, second: str | Path) -> list[MapDifference]:
    """The maps of two runs side by side, in the order of the first run.

    Raises:
        ConfigError: If a folder holds no run.
        InputError: If a map cannot be read.
    """
    folders = Path(first), Path(second)
    one, other = (_maps(folder) for folder in folders)
    found = [
        _difference(name, folders[0] / one[name].file, folders[1] / other[name].file)
        if name in other
        else _only(name, "first")
        for name in one
    ]
    return found + [_only(name, "second") for name in other if name not in one]


def _maps(folder: Path) -> dict[_Name, MapRecord]:
    records = Store(folder).manifest().maps
    return {(r.case, r.model, r.target, r.label, r.layer or ""): r for r in records}


def _only(name: _Name, run: Literal["first", "second"]) -> MapDifference:
    return MapDifference(*name[:3], _label(name), run)


def _difference(name: _Name, first: Path, second: Path) -> MapDifference:
    one, other = _voxels(first), _voxels(second)
    if one.shape != other.shape:
        return MapDifference(*name[:3], _label(name), "shape")
    if np.array_equal(one, other, equal_nan=True):
        return MapDifference(*name[:3], _label(name), "same")
    norms = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    cosine = float(np.vdot(one, other)) / norms if norms else 0.0
    scale = float(np.abs(one).max()) or 1.0
    largest = float(np.abs(one - other).max()) / scale
    return MapDifference(*name[:3], _label(name), "different", cosine, largest)


def _label(name: _Name) -> str:
    return f"{name[3]} at {name[4]}" if name[4] and name[4] not in name[3] else name[3]


def _voxels(file: Path) -> np.ndarray:
    try:
        image: Any = nibabel.loadsave.load(file)
        return np.asarray(image.dataobj, dtype=np.float64)
    except (OSError, ValueError, EOFError, nibabel.filebasedimages.ImageFileError) as error:
        raise InputError(f"the map {file} cannot be read ({type(error).__name__})") from error
