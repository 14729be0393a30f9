"""Concepts of the reference labels of the cases, and of label maps in files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from voxplain.concepts.bank.spec import ConceptSpec, KnownConcepts, MaskOf, a_mask
from voxplain.concepts.concept import Concept
from voxplain.engine.cohort import CohortCase
from voxplain.errors import ConfigError, InputError, VoxplainWarning
from voxplain.grid import Grid
from voxplain.io import read_mask
from voxplain.io.mask import grid_of_mask

Values = int | tuple[int, ...]


class LabelConcepts(ConceptSpec):
    """Structures of the reference labels, such as the whole tumor as the union of three labels.

    Attributes:
        names: Label, or labels that are joined, by the name of the concept.
    """

    kind: Literal["labels"] = "labels"
    names: Mapping[str, Values] = Field(min_length=1)

    def concepts(self, known: KnownConcepts) -> tuple[Concept, ...]:
        """One concept per name."""
        return tuple(
            a_mask(name, _of_labels(values), f"reference {_in_words(values)}", "labels", "explicit")
            for name, values in self.names.items()
        )


class FileConcepts(ConceptSpec):
    """Structures of a label map that lies in a file per case, such as an atlas or organs.

    A file on another grid is brought to that of the image by the nearest voxel, with a warning.

    Attributes:
        pattern: Path of the file, with ``{case}`` or ``{patient}`` in it.
        names: Label, or labels that are joined, by the name of the concept.
        status: Whether the file is a ground truth.
    """

    kind: Literal["file"] = "file"
    pattern: str
    names: Mapping[str, Values] = Field(min_length=1)
    status: Literal["explicit", "derived"] = "derived"

    def concepts(self, known: KnownConcepts) -> tuple[Concept, ...]:
        """One concept per name; a case without a file does not know them."""
        group = f"file {Path(self.pattern).name}"
        maps = _LabelFiles(self.pattern)
        return tuple(
            a_mask(
                name,
                _of_file(maps, values),
                f"{_in_words(values)} of {Path(self.pattern).name}",
                group,
                self.status,
            )
            for name, values in self.names.items()
        )


def _of_labels(values: Values) -> MaskOf:
    wanted = _all(values)

    def compute(case: CohortCase) -> Tensor | None:
        return None if case.labels is None else torch.isin(case.labels, wanted.to(case.labels))

    return compute


def _of_file(maps: _LabelFiles, values: Values) -> MaskOf:
    wanted = _all(values)

    def compute(case: CohortCase) -> Tensor | None:
        labels = maps(case)
        return None if labels is None else torch.isin(labels, wanted)

    return compute


class _LabelFiles:
    """The label map of a case from its file; that of the last case is kept."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._last: tuple[CohortCase, Tensor] | None = None

    def __call__(self, case: CohortCase) -> Tensor | None:
        if self._last is None or self._last[0] is not case:
            path = self._path(case)
            if not path.is_file():
                return None
            self._last = (case, _labels_on(path, case))
        return self._last[1]

    def _path(self, case: CohortCase) -> Path:
        try:
            return Path(self._pattern.format(case=case.id, patient=case.patient))
        except (KeyError, IndexError, ValueError):
            raise ConfigError(
                f"{self._pattern!r} is no pattern; write {{case}} or {{patient}} for the id"
            ) from None


def _labels_on(path: Path, case: CohortCase) -> Tensor:
    """The labels of a file on the grid of the image of a case.

    Raises:
        InputError: If the file and the scan have no place in common.
    """
    scan = case.image.source_grid
    grid = grid_of_mask(path, scan.rank)
    elsewhere = grid is not None and grid.unit == scan.unit and not _same_voxels(grid, scan)
    if grid is not None and elsewhere and not _overlap(grid.corners, scan.corners):
        raise InputError(
            f"{path.name} and the image of case {case.id!r} have no place in common; the label map "
            "must be in the frame of the image"
        )
    if elsewhere:
        warnings.warn(
            f"{path.name} lies on another grid ({grid}) than case {case.id!r} ({scan}); it is "
            "resampled by the nearest voxel",
            VoxplainWarning,
            stacklevel=2,
        )
    return case.image.project(read_mask(path, scan, resample=True))


def _same_voxels(one: Grid, other: Grid) -> bool:
    """Whether two grids have the same voxels, in whatever order of their axes."""
    apart = np.linalg.norm(one.corners[:, None] - other.corners[None], axis=-1).min(axis=1)
    same_sides = sorted(one.shape) == sorted(other.shape)
    return same_sides and bool(apart.max() <= 0.01 * min(other.spacing))


def _overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether the boxes around the corners of two grids meet."""
    apart = (one.min(axis=0) > other.max(axis=0)) | (other.min(axis=0) > one.max(axis=0))
    return not bool(apart.any())


def _all(values: Values) -> Tensor:
    return torch.tensor([values] if isinstance(values, int) else list(values))


def _in_words(values: Values) -> str:
    several = (values,) if isinstance(values, int) else values
    return f"label{'s' * (len(several) > 1)} {', '.join(map(str, several))}"
