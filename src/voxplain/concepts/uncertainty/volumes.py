"""The volume of predicted objects over samples."""

from __future__ import annotations

import torch
from torch import Tensor

from voxplain.concepts.uncertainty.entropy import Classes
from voxplain.records.uncertainty import VolumeRecord
from voxplain.targets import UnperturbedOutput

_TAILS = (0.025, 0.975)


class SampledVolumes:
    """Counts of the voxels of every class, sample by sample.

    Args:
        classes: The classes.
        seen: The output for the unchanged image, for the size of a voxel.
        unchanged: Where each class is predicted in the unchanged image, ``(classes, *spatial)``
            bool; it stands for voxels that a sample does not show.
    """

    def __init__(self, classes: Classes, seen: UnperturbedOutput, unchanged: Tensor) -> None:
        self._classes, self._unchanged = classes, unchanged
        self._per_voxel, self._unit = _voxel(seen, unchanged.ndim - 1)
        self._counts: list[Tensor] = []

    def add(self, probability: Tensor, seen: Tensor) -> None:
        """Adds a sample: ``(classes, *spatial)``, and the voxels that it shows."""
        predicted = torch.where(seen, self._classes.predicted(probability), self._unchanged)
        self._counts.append(predicted.flatten(1).sum(dim=1).double().cpu())

    def records(self, mean: Tensor) -> list[VolumeRecord]:
        """The volumes of the objects, given where the mean predicts them, as in :meth:`add`."""
        counts = torch.stack(self._counts)
        return [self._record(label, counts[:, label], mean[label]) for label in self._objects]

    @property
    def _objects(self) -> tuple[int, ...]:
        return self._classes.objects

    def _record(self, label: int, counts: Tensor, mean: Tensor) -> VolumeRecord:
        volumes = counts * self._per_voxel
        ends = torch.quantile(volumes, torch.tensor(_TAILS, dtype=torch.float64))
        return VolumeRecord(
            label=label,
            name=self._classes.names[label],
            unit=self._unit,
            predicted=int(mean.sum()) * self._per_voxel,
            mean=float(volumes.mean()),
            deviation=float(volumes.std()) if len(volumes) > 1 else 0.0,
            low=float(ends[0]),
            high=float(ends[1]),
            samples=len(volumes),
        )


def _voxel(seen: UnperturbedOutput, rank: int) -> tuple[float, str]:
    """The volume of a voxel of the image and its unit: mL, cm² in 2-D, or voxels."""
    if seen.voxel_volume is None:
        return 1.0, seen.elements
    return (seen.voxel_volume / 1000, "mL") if rank == 3 else (seen.voxel_volume / 100, "cm²")
