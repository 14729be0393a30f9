"""BraTS cases as axial slices of four modalities, normalized inside of the brain."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import nibabel
import numpy as np
import torch
from network import MODALITIES
from numpy.typing import NDArray
from torch import Tensor

from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.grid import Grid
from voxplain.image import Image

SPACING = (2.0, 2.0)
"""Millimeters per pixel of a slice."""
FEWEST_BRAIN = 400
"""Fewest pixels of brain in a slice."""


def case_ids(folder: Path, split: str) -> list[str]:
    """The cases of the ``train`` or the ``test`` split."""
    with (folder / "cases.csv").open() as stream:
        return [row["case"] for row in csv.DictReader(stream) if row["split"] == split]


@lru_cache(maxsize=32)
def volume(folder: Path, case: str) -> tuple[Tensor, Tensor]:
    """Modalities ``(4, X, Y, Z)``, z-scored inside of the brain, and classes ``(X, Y, Z)``.

    Labels 0, 1, 2, 4 become the classes 0, 1, 2, 3.
    """
    files = [folder / case / f"{case}_{name}.nii.gz" for name in MODALITIES]
    voxels = torch.from_numpy(np.stack([_read(file) for file in files])).float()
    brain = (voxels > 0).any(dim=0)
    inside = voxels[:, brain]
    mean, spread = inside.mean(dim=1), inside.std(dim=1)
    scaled = (voxels - mean[:, None, None, None]) / spread[:, None, None, None]
    labels = torch.from_numpy(_read(folder / case / f"{case}_seg.nii.gz")).long()
    return scaled * brain, torch.where(labels == 4, 3, labels)


def _read(file: Path) -> NDArray[np.float32]:
    return np.asarray(nibabel.load(file).dataobj, dtype=np.float32)


def slice_numbers(folder: Path, case: str, step: int = 1) -> list[int]:
    """The axial slices that show enough brain."""
    voxels, _ = volume(folder, case)
    shown = (voxels != 0).any(dim=0).sum(dim=(0, 1))
    return [number for number in range(0, len(shown), step) if shown[number] >= FEWEST_BRAIN]


def slices(folder: Path, split: str, step: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    """Every slice ``(4, X, Y)`` of a split with its classes ``(X, Y)``."""
    for case in case_ids(folder, split):
        voxels, labels = volume(folder, case)
        for number in slice_numbers(folder, case, step):
            yield voxels[..., number], labels[..., number]


def slice_cohort(folder: Path, split: str, step: int = 3) -> Cohort:
    """Slices as the cases of a cohort; all slices of a patient stay together.

    Args:
        folder: Of the cases.
        split: ``train`` or ``test``.
        step: Every so many slices.
    """
    patients = {
        f"{case}_{number:03d}": case
        for case in case_ids(folder, split)
        for number in slice_numbers(folder, case, step)
    }

    def load(name: str) -> CohortCase:
        voxels, labels = volume(folder, patients[name])
        number = int(name[-3:])
        image = voxels[..., number].contiguous()
        grid = Grid.default(image.shape[1:], SPACING)
        return CohortCase(name, patients[name], Image(image, grid), labels[..., number])

    return Cohort(patients, load)
