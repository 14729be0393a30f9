"""A volume with its affine, as figures and viewers need it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from voxplain.image import Grid

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class DisplayVolume:
    """Channels on three spatial axes with their affine; a 2-D image has an axis of length one.

    Attributes:
        data: ``(C, X, Y, Z)``.
        affine: 4x4, voxel index to RAS+ millimeters (or pixels).
        unit: ``"mm"`` or ``"pixel"``.
        channels: A name per channel.
        picture: Whether the first two axes are the rows and columns of a picture, not
            directions in a patient.
        window: Black and white point that the file states for its display, in source units.
    """

    data: Array
    affine: NDArray[np.float64]
    unit: Literal["mm", "pixel"] = "mm"
    channels: tuple[str, ...] = ()
    picture: bool = False
    window: tuple[float, float] | None = None

    @classmethod
    def of(cls, data: Tensor, grid: Grid, channels: tuple[str, ...] = ()) -> DisplayVolume:
        """A volume from a tensor ``(C, *spatial)`` with two or three spatial axes on its grid."""
        array = np.asarray(data.detach().cpu().numpy(), dtype=np.float32)
        array = array.reshape(*array.shape, *(1,) * (4 - array.ndim))
        picture = grid.rank == 2 and (grid.unit == "pixel" or grid.code == 0)
        return cls(array, np.array(grid.affine), grid.unit, channels, picture)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The three spatial sizes."""
        _, x, y, z = self.data.shape
        return x, y, z

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Voxel size along the three axes, in the unit."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def tilt(self) -> float:
        """The largest angle, in degrees, between an axis and the nearest patient direction."""
        directions = np.abs(self.affine[:3, :3]) / self.spacing
        return float(np.degrees(np.arccos(np.clip(directions.max(axis=0), 0, 1))).max())

    @property
    def planar(self) -> bool:
        """Whether this is a 2-D image."""
        return self.picture or 1 in self.shape

    def world(self, index: ArrayLike) -> NDArray[np.float64]:
        """RAS+ position of a voxel index, in the unit."""
        offset = self.affine[:3, :3] @ np.asarray(index, dtype=np.float64)
        return np.asarray(offset + self.affine[:3, 3])

    def canonical(self) -> DisplayVolume:
        """The volume with axes toward the right, front and top; a picture stays as it is."""
        from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

        if self.picture:
            return self
        orientation = io_orientation(self.affine)
        data = np.stack([apply_orientation(channel, orientation) for channel in self.data])
        return replace(self, data=data, affine=self.affine @ inv_ornt_aff(orientation, self.shape))

    def channel_sum(self) -> Array:
        """The sum over channels, ``(X, Y, Z)``."""
        return np.asarray(self.data.sum(axis=0) if len(self.data) > 1 else self.data[0])

    def crop(self, box: tuple[slice, ...]) -> DisplayVolume:
        """The volume inside a box of three slices."""
        start = [side.start for side in box]
        affine = self.affine.copy()
        affine[:3, 3] = self.world(start)
        return replace(self, data=self.data[(slice(None), *box)], affine=affine)

    def shrink(self, factor: tuple[int, ...], labels: bool = False) -> DisplayVolume:
        """Averages over blocks of voxels, or their middle labels; incomplete blocks are cut off."""
        step = np.minimum(factor, self.shape)
        shape = np.array(self.shape) // step
        data = self.data[(slice(None), *(slice(n) for n in shape * step))]
        if labels:
            data = data[(slice(None), *(slice(s // 2, None, s) for s in step))]
        else:
            blocks = [size for pair in zip(shape, step, strict=True) for size in pair]
            data = data.reshape(len(data), *blocks).mean(axis=(2, 4, 6))
        affine = self.affine.copy()
        affine[:3, 3] = self.world((step - 1) / 2)
        affine[:3, :3] = self.affine[:3, :3] * step
        return replace(self, data=data, affine=affine)

    def onto(self, other: DisplayVolume, labels: bool = False) -> DisplayVolume:
        """The values on the voxels of another volume, through both affines.

        Values are interpolated linearly between cell centers and held for half a cell beyond the
        outermost ones; farther out they are zero. Labels are taken from the nearest cell.
        """
        if self.shape == other.shape and np.allclose(self.affine, other.affine, atol=1e-4):
            return self
        index = np.linalg.inv(self.affine) @ other.affine
        slabs = [self._resampled_slab(index, other.shape, x, labels) for x in range(other.shape[0])]
        data = np.stack(slabs, axis=1).astype(self.data.dtype)
        return replace(self, data=data, affine=other.affine, picture=other.picture)

    def _resampled_slab(self, index: Array, shape: tuple[int, ...], x: int, labels: bool) -> Array:
        from scipy.ndimage import map_coordinates

        voxels = np.stack(np.meshgrid(x, *map(np.arange, shape[1:]), indexing="ij"), -1)[0]
        positions = voxels @ index[:3, :3].T + index[:3, 3]
        size = np.array(self.shape)
        inside = np.all((positions >= -0.5 - 1e-6) & (positions <= size - 0.5 + 1e-6), axis=-1)
        at = np.moveaxis(positions, -1, 0)
        order = 0 if labels else 1
        values = [map_coordinates(c, at, order=order, mode="nearest") for c in self.data]
        return np.asarray(np.stack(values) * inside)


def read_volume(
    path: Path,
    rank: int,
    unit: Literal["mm", "pixel"],
    channels: tuple[str, ...] = (),
    affine: ArrayLike | None = None,
) -> DisplayVolume:
    """A volume from a NIfTI file of a run.

    Args:
        path: The file; a fourth axis holds channels.
        rank: Spatial rank of the case, 2 or 3.
        unit: ``"mm"`` or ``"pixel"``.
        channels: Names of the channels.
        affine: The affine that its sidecar states, where there is one: nibabel reads a header
            with code 0 as centered, although its matrix is right.

    Returns:
        The volume, not reoriented. A 2-D image whose rows go down and whose columns go right,
        without the code of scanner coordinates, is a picture: it has no patient directions.

    Raises:
        OSError: If the file is missing, damaged or not a NIfTI file.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.orientations import aff2axcodes

    try:
        nifti: Any = nibabel.load(path)
    except ImageFileError as error:
        raise OSError("not a NIfTI file") from error
    data = np.asarray(nifti.dataobj)
    if data.dtype.kind == "f":
        data = data.astype(np.float32)
    data = data.reshape(*data.shape, *(1,) * (4 - data.ndim))
    stated = nifti.header.get_sform() if affine is None else np.asarray(affine, dtype=np.float64)
    if abs(np.linalg.det(stated[:3, :3])) < 1e-12:
        stated = nifti.affine
    upright = "".join(aff2axcodes(stated))[:2] == "PL" and int(nifti.header["sform_code"]) in (0, 2)
    picture = rank == 2 and (unit == "pixel" or upright)
    low, high = float(nifti.header["cal_min"]), float(nifti.header["cal_max"])
    window = (low, high) if low < high else None
    return DisplayVolume(np.moveaxis(data, -1, 0), stated, unit, channels, picture, window)
