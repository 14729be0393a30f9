"""An image on its grid: voxels, their place in the patient, and the steps that led there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Literal, Protocol

import numpy as np
import torch
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from voxplain.errors import InputError
from voxplain.objects import placed_array

Unit = Literal["mm", "pixel"]
Mode = Literal["value", "mass", "label"]


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


class Inverse(Protocol):
    """A spatial preprocessing step that was applied, in both directions."""

    @property
    def name(self) -> str:
        """The kind of the step, as named in a study."""

    @property
    def grid(self) -> Grid:
        """The grid before the step."""

    def __call__(self, values: Tensor, mode: Mode) -> Tensor:
        """Brings ``(C, *spatial)`` from the grid after the step to :attr:`grid`."""

    def forward(self, values: Tensor, mode: Mode = "label") -> Tensor:
        """Brings ``(..., *spatial)`` from :attr:`grid` to the grid after the step."""


@dataclass(frozen=True, eq=False)
class Image:
    """Channels on a grid, with the preprocessing that led there from the source file.

    Attributes:
        data: ``(C, *spatial)``, floating point.
        grid: Where the voxels lie; ``grid.shape == data.shape[1:]``.
        channels: Name of each channel, such as ``("flair", "t1")``.
        history: Inverses of the spatial preprocessing steps, in the order of the steps.
        intensity: Slope and intercept per channel that turn a value of ``data`` into the
            intensity of the source file (HU in a CT); empty where both are equal.
        source: Facts about the file without identity (modality, format).
    """

    data: Tensor
    grid: Grid
    channels: tuple[str, ...] = ()
    history: tuple[Inverse, ...] = ()
    intensity: tuple[tuple[float, float], ...] = ()
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        data = _real(_plain(self.data))
        if tuple(data.shape[1:]) != self.grid.shape:
            raise InputError(
                f"image data of shape {tuple(data.shape)} does not fit a grid of shape "
                f"{self.grid.shape}; the data need one leading channel axis"
            )
        names = self.channels or tuple(f"channel {index}" for index in range(len(data)))
        if len(names) != len(data):
            raise InputError(f"{len(names)} channel names for {len(data)} channels")
        if self.intensity and len(self.intensity) != len(data):
            raise InputError(f"{len(self.intensity)} intensity scales for {len(data)} channels")
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "channels", tuple(names))

    @classmethod
    def from_array(cls, array: Any, spacing: ArrayLike | None = None) -> Image:
        """An image from an array or tensor, or from an image object of another library.

        A bare array ``(C, *spatial)`` comes on an axis-aligned grid without orientation. Objects
        that know where they lie keep their affine: ``MetaTensor`` of MONAI ``(C, *spatial)``,
        images of nibabel, SimpleITK and TorchIO (one slice becomes a 2-D image, except of
        SimpleITK). A picture of Pillow becomes ``(C, rows, columns)``.

        Args:
            array: Real numbers.
            spacing: Millimeters per voxel, for arrays that do not know it; pixels if None.

        Raises:
            InputError: If the values are complex or boolean, an axis is empty, or ``spacing`` is
                given for an object that has its own.
        """
        found = placed_array(array)
        if found is None:
            data = _plain(array)
            return cls(data, Grid.default(tuple(data.shape[1:]), spacing))
        data, shape = _plain(found.data), tuple(found.data.shape[1:])
        if found.affine is None:
            grid = Grid.picture(shape, spacing) if found.picture else Grid.default(shape, spacing)
        elif spacing is None:
            grid = Grid(shape, found.affine, code=found.code)
        else:
            raise InputError("the image states its own spacing; leave the argument out")
        return cls(data, grid, found.channels)

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return self.grid.rank

    @property
    def source_grid(self) -> Grid:
        """The grid of the file, before any preprocessing."""
        return self.history[0].grid if self.history else self.grid

    def restore(self, values: Tensor, mode: Mode = "value") -> Tensor:
        """A map on this image's grid, brought back to the source grid.

        Args:
            values: ``(C, *spatial)`` with any number of channels.
            mode: ``value`` interpolates; ``mass`` also keeps the sum over space (densities such
                as integrated gradients); ``label`` takes the nearest value.

        Returns:
            The map on :attr:`source_grid`: 0 in what preprocessing had cropped; values on padding
            are dropped.

        Raises:
            InputError: If the map is not on this image's grid.
        """
        _require_shape("map", tuple(values.shape[1:]), self.grid.shape)
        for step in reversed(self.history):
            values = step(values, mode)
        return values

    def project(self, labels: Tensor) -> Tensor:
        """Labels ``(*spatial)`` on the source grid, brought to this image's grid by nearest voxel.

        Raises:
            InputError: If the labels are not on :attr:`source_grid`.
        """
        _require_shape("label mask", tuple(labels.shape), self.source_grid.shape)
        for step in self.history:
            labels = step.forward(labels)
        return labels

    def carry(self, values: Tensor, mode: Mode = "value") -> Tensor:
        """A map on the source grid, as in a file, brought to this image's grid.

        Args:
            values: ``(C, *spatial)`` with any number of channels.
            mode: ``value`` interpolates, ``mass`` also keeps the sum over space.

        Raises:
            InputError: If the map is not on :attr:`source_grid`.
        """
        _require_shape("map", tuple(values.shape[1:]), self.source_grid.shape)
        for step in self.history:
            values = step.forward(values, mode)
        return values

    def source_intensity(self, value: float) -> list[float]:
        """The intensity in the source file of a value of :attr:`data`, per channel.

        Clipping and masking of the background are not undone: after a z-score over the foreground,
        0 is the mean of the foreground.
        """
        slopes = self.intensity or ((1.0, 0.0),) * len(self.channels)
        return [value * slope + intercept for slope, intercept in slopes]


def _plain(array: Any) -> Tensor:
    """A plain tensor of any array, also of one that is flipped or has the other byte order."""
    if isinstance(array, Tensor):
        return array.as_subclass(Tensor)
    values = np.asarray(array)
    native = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))
    try:
        return torch.from_numpy(native if native.flags.writeable else native.copy())
    except TypeError:
        raise InputError(f"an image needs real numbers, not {values.dtype}") from None


def _real(data: Tensor) -> Tensor:
    """The same as floating point, without gradients."""
    if data.is_complex() or data.dtype == torch.bool:
        kind = "complex numbers" if data.is_complex() else "true and false"
        raise InputError(f"an image holds real numbers, not {kind}; convert it first")
    if data.numel() == 0:
        raise InputError(f"an image of shape {tuple(data.shape)} holds no voxels")
    return data.detach() if data.is_floating_point() else data.detach().to(torch.float32)


def _require_shape(what: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected:
        raise InputError(f"a {what} of shape {shape} does not lie on the grid of shape {expected}")
