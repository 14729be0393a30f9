"""Regions from a label map, such as an atlas or organs on the grid of the scan."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_serializer
from torch import Tensor

from voxplain.errors import InputError
from voxplain.image import Image
from voxplain.io import read_labels, read_mask
from voxplain.regions.map import RegionMap, distinct
from voxplain.regions.names import read_names
from voxplain.regions.spec import Regions, Spacing

REST = "the rest of the image"


class LabelMap(Regions):
    """Anatomical regions from a label map.

    Attributes:
        labels: Whole numbers ``(*spatial)``, or ``(C, *spatial)``, on the grid of the network's
            input or of the scan; or a file on the grid of the scan. In an array, labels below
            0 are no region; a file with such labels is refused.
        names: Mapping from label to name, or a JSON, CSV or TSV file or a color table with one.
        rest: Whether voxels of label 0 are a region too; else they are never masked.
    """

    files: ClassVar[tuple[str, ...]] = ("labels", "names")

    kind: Literal["labels"] = "labels"
    labels: Any = Field(description="array, or file on the grid of the scan")
    names: Mapping[int, str] | str | Path | None = Field(
        default=None, description="label to name, or a file with them"
    )
    rest: bool = Field(default=True, description="what has label 0 is one region too")

    def divide(self, image: Tensor, spacing: Spacing, scan: Image | None) -> RegionMap:
        """The regions in the order of their labels, the rest last.

        Raises:
            InputError: If the labels do not lie on the grid, or there is none on the image.
        """
        labels = self._placed(image, scan).to(image.device)
        if not bool((labels > 0).any()):
            raise InputError(f"{self._called} has no label on the image: every voxel of it is 0")
        rest = int(labels.amax()) + 1
        ordered = torch.where(labels == 0, rest if self.rest else -1, labels)
        names = self._read_names()
        names_in_order = [
            REST if label == rest else names.get(label, f"label {label}")
            for label in distinct(ordered).tolist()
        ]
        return RegionMap(RegionMap.compacted(ordered).labels, tuple(names_in_order))

    def expected(self, shape: Sequence[int], channels: int, spacing: Spacing = None) -> int:
        """The number of labels in the map; cropping may leave fewer."""
        labels = distinct(torch.as_tensor(self._read(len(shape)))).tolist()
        return sum(1 for label in labels if label > 0 or self.rest)

    @field_serializer("labels", "names", when_used="always")
    def _without_path(self, value: Any) -> Any:
        """A file is serialized as the hash of its content, independent of its path."""
        return f"file:{_hashed(value)}" if isinstance(value, (str, Path)) else value

    @property
    def _called(self) -> str:
        return Path(self.labels).name if _is_path(self.labels) else "the label map"

    def _placed(self, image: Tensor, scan: Image | None) -> Tensor:
        shape = tuple(image.shape[1:])
        if _is_path(self.labels):
            return self._from_file(shape, scan)
        labels = _whole(self.labels)
        if tuple(labels.shape) in (shape, tuple(image.shape)):
            return labels
        if scan is not None and tuple(labels.shape) == scan.source_grid.shape:
            return scan.project(labels)
        raise InputError(
            f"a label map of shape {tuple(labels.shape)} does not lie on the image of shape {shape}"
        )

    def _from_file(self, shape: tuple[int, ...], scan: Image | None) -> Tensor:
        if scan is None:
            raise InputError(
                f"{self._called} needs an image on its grid: pass an Image, or the labels as array"
            )
        labels = scan.project(read_mask(self.labels, scan.source_grid))
        if tuple(labels.shape) != shape:
            raise InputError(
                f"{self._called} has shape {tuple(labels.shape)} on the grid of the image, whose "
                f"shape is {shape}"
            )
        return labels

    def _read(self, rank: int) -> Any:
        if not _is_path(self.labels):
            return _whole(self.labels).cpu().numpy()
        return read_labels(self.labels, rank)

    def _read_names(self) -> Mapping[int, str]:
        if isinstance(self.names, (str, Path)):
            return read_names(self.names)
        return self.names or {}


def _is_path(labels: Any) -> bool:
    return isinstance(labels, (str, Path))


def _whole(labels: Any) -> Tensor:
    is_tensor = isinstance(labels, Tensor)
    tensor = labels.as_subclass(Tensor) if is_tensor else torch.as_tensor(np.asarray(labels))
    if tensor.is_floating_point() and bool((tensor != tensor.round()).any()):
        raise InputError("the label map holds fractions, and labels are whole numbers")
    return tensor.long()


def _hashed(value: str | Path) -> str:
    path = Path(value)
    content = path.read_bytes() if path.is_file() else str(value).encode()
    return hashlib.sha256(content).hexdigest()[:16]
