"""Where voxels lie: the shape of a grid and its place in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes
from numpy.typing import ArrayLike, NDArray

from voxplain.errors import InputError

Unit = Literal["mm", "pixel"]


@dataclass(frozen=True, eq=False)
class Grid:
    """The place of the voxels of an image in the patient.

    Attributes:
        shape: Spatial shape, two or three axes.
        affine: 4x4, voxel index (of the center) to RAS+ millimeters. A 2-D grid uses the first
            two columns; the third is its through-plane direction.
        unit: ``"mm"``, or ``"pixel"`` where the physical size is unknown (then no volume in mL).
        code: NIfTI sform code of the source (1 scanner, 2 aligned, 4 MNI); 0 where the orientation
            in the patient is unknown, as in pictures and bare arrays.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    unit: Unit = "mm"
    code: int = 1

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise InputError(f"a grid needs a finite 4x4 affine, not one of shape {affine.shape}")
        if min(self.shape, default=0) < 1:
            raise InputError(f"a grid of shape {tuple(self.shape)} has an axis without voxels")
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if not lengths.all() or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-9:
            raise InputError("the affine of the grid is singular: two axes point the same way")
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))

    @classmethod
    def default(cls, shape: Sequence[int], spacing: ArrayLike | None = None) -> Grid:
        """An axis-aligned RAS grid at the origin, in pixels if no spacing is given."""
        diagonal = np.ones(4)
        if spacing is not None:
            diagonal[: len(shape)] = np.broadcast_to(spacing, len(shape))
        return cls(
            tuple(shape), np.diag(diagonal), unit="pixel" if spacing is None else "mm", code=0
        )

    @classmethod
    def picture(cls, shape: Sequence[int], spacing: ArrayLike | None = None) -> Grid:
        """The grid of a picture, which knows no patient.

        Its rows go toward P and its columns toward L, so that viewers of NIfTI display it upright.
        """
        default = cls.default(shape, spacing)
        upright = np.eye(4)
        upright[:2, :2] = [[0, -1], [-1, 0]]
        return replace(default, affine=upright @ default.affine)

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.shape)

    @property
    def spacing_mm(self) -> tuple[float, ...] | None:
        """Millimeters per voxel and axis; None where the physical size is unknown."""
        return self.spacing if self.unit == "mm" else None

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size along each spatial axis, in the grid's unit."""
        return tuple(float(size) for size in voxel_sizes(self.affine)[: self.rank])

    @property
    def axis_codes(self) -> tuple[str, ...]:
        """The direction of each axis, such as ``("R", "A", "S")``, by the affine alone."""
        return tuple(aff2axcodes(self.affine)[: self.rank])

    @property
    def orientation(self) -> str:
        """The anatomical direction of each axis, such as ``RAS``; empty where it is unknown."""
        return "".join(self.axis_codes) if self.code else ""

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in the grid's unit (mm³ in 3-D, mm² in 2-D)."""
        # The Gram determinant, not the product of the spacings: a tilted gantry shears the voxels.
        axes = self.affine[:3, : self.rank]
        return float(np.sqrt(np.linalg.det(axes.T @ axes)))

    @property
    def corners(self) -> NDArray[np.float64]:
        """RAS+ positions of the centers of the corner voxels, ``(2 ** rank, 3)`` in mm."""
        return self.world(list(product(*((0, size - 1) for size in self.shape))))

    def world(self, index: ArrayLike) -> NDArray[np.float64]:
        """RAS+ positions ``(..., 3)`` in mm of voxel indices ``(..., rank)``."""
        index = np.asarray(index, dtype=np.float64)
        return index @ self.affine[:3, : self.rank].T + self.affine[:3, 3]

    def sub(self, start: ArrayLike, step: ArrayLike, shape: Sequence[int]) -> Grid:
        """The grid whose cell ``i`` lies at voxel ``start + step * i`` of this one."""
        inner = np.eye(4)
        inner[range(self.rank), range(self.rank)] = step
        inner[: self.rank, 3] = start
        return replace(self, shape=tuple(shape), affine=self.affine @ inner)

    def matches(self, other: Grid, tolerance: float = 0.01) -> bool:
        """Whether the shapes are equal and no corners lie more than ``tolerance`` voxels apart."""
        if self.shape != other.shape:
            return False
        distances = np.linalg.norm(self.corners - other.corners, axis=1)
        return bool(distances.max() <= tolerance * min(self.spacing))

    def __str__(self) -> str:
        size = " x ".join(map(str, self.shape))
        spacing = " x ".join(f"{length:.4g}" for length in self.spacing)
        axes = f", axes {self.orientation}" if self.orientation else ""
        return f"{size} voxels of {spacing} {self.unit}{axes}"
