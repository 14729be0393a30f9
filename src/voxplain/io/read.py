"""Reading of an image from any supported file, or from several as its channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.errors import InputError
from voxplain.image import Grid, Image
from voxplain.io.arrays import read_array
from voxplain.io.bounds import reading
from voxplain.io.dicom import read_dicom
from voxplain.io.dicom_planes import is_dicom
from voxplain.io.metaimage import read_metaimage
from voxplain.io.nifti import read_mgh, read_nifti, read_nifti_pair
from voxplain.io.nrrd import read_nrrd
from voxplain.io.picture import read_picture
from voxplain.io.raw import RawImage

Spacing = float | tuple[float, ...]
Channels = Literal["first", "last"] | Sequence[str]

NIFTI = (".nii", ".nii.gz")
PICTURE = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
ARRAY = (".npy", ".npz")
_DICOM = (".dcm", ".dicom", ".ima")
_PLACED = {
    **dict.fromkeys(NIFTI, read_nifti),
    **dict.fromkeys((".hdr", ".img"), read_nifti_pair),
    **dict.fromkeys((".mgh", ".mgz"), read_mgh),
    **dict.fromkeys((".mha", ".mhd"), read_metaimage),
    **dict.fromkeys((".nrrd", ".nhdr"), read_nrrd),
}
"""Readers of formats that state the place of their voxels, by the end of the name."""


def read_image(
    path: str | Path | Sequence[str | Path],
    *,
    channels: Channels | None = None,
    rank: Literal[2, 3] | None = None,
    spacing: Spacing | None = None,
    series: int | None = None,
) -> Image:
    """An image with its place in the patient, and without the patient's identity.

    ==========================  =============================================================
    source                      data
    ==========================  =============================================================
    NIfTI, MGH, Analyze         ``(C, i, j, k)`` in the order of the file; a 4th axis is channels
    NRRD, MetaImage             ``(C, i, j, k)`` in the order of the file
    DICOM folder                ``(1, columns, rows, slices)``, sorted by position
    DICOM file of one image     ``(C, rows, columns)``
    PNG, JPEG, TIFF, BMP        ``(C, rows, columns)``, gray is one channel
    ``.npy``, ``.npz``          channel axis by ``channels``; none without it
    several of these            all their channels, in order; the grids must be equal
    ==========================  =============================================================

    Args:
        path: A file, a DICOM folder, or several of them as channels.
        channels: Name of each channel; or ``"first"`` or ``"last"``, the channel axis of NumPy
            files.
        rank: 2 or 3 where the file leaves it open; with 3 a single slice is a volume.
        spacing: Millimeters per pixel of pictures and NumPy files, which do not hold it.
        series: ``SeriesNumber`` of the series to read, for DICOM folders that hold several.

    A file may unpack to 2 GiB, or to a hundred times its own size if that is more.

    Raises:
        InputError: If a file cannot be read, or several do not fit together.
    """
    paths = [Path(path)] if isinstance(path, (str, Path)) else [Path(file) for file in path]
    if not paths:
        raise InputError("no image file was given")
    axis = channels if channels in ("first", "last") else None
    raws = [read_raw(file, axis, rank, spacing, series) for file in paths]
    for other, raw in zip(paths[1:], raws[1:], strict=True):
        _require_same(paths[0], raws[0].grid, other, raw.grid)
    data = np.concatenate([_float32(file, raw) for file, raw in zip(paths, raws, strict=True)])
    return Image(
        torch.from_numpy(data),
        raws[0].grid,
        channels=_names(raws, None if axis else channels, len(data)),
        source=dict(raws[0].source),
    )


def read_raw(
    path: Path,
    axis: Literal["first", "last"] | None,
    rank: int | None,
    spacing: Spacing | None,
    series: int | None = None,
) -> RawImage:
    """The content of one file, all values finite.

    Args:
        path: A file or a DICOM folder.
        axis: Channel axis of NumPy files; None for none.
        rank: 2 or 3 where the file leaves it open.
        spacing: Millimeters per pixel of pictures and NumPy files.
        series: Number of the series of a DICOM folder.

    Raises:
        InputError: If the file does not exist, is of no known kind, or holds NaN or infinity.
    """
    try:
        if not path.exists():
            raise InputError(f"there is no file {path}")
    except OSError as error:
        raise InputError(f"{path} cannot be looked up ({error.strerror})") from None
    with reading(path):
        raw = _read(path, axis, rank, spacing, series)
        _require_finite(path, raw)
        return raw


def _read(
    path: Path,
    axis: Literal["first", "last"] | None,
    rank: int | None,
    spacing: Spacing | None,
    series: int | None,
) -> RawImage:
    name = path.name.lower()
    if series is not None and not path.is_dir():
        raise InputError(f"{path.name} is a file, and series chooses from a DICOM folder")
    if not path.is_dir():
        if name.endswith(PICTURE):
            return read_picture(path, rank, spacing)
        if name.endswith(ARRAY):
            return read_array(path, axis, rank, spacing)
    reader = _placing_reader(path)
    if spacing is not None:
        raise InputError(f"{path.name} states its own spacing; leave the argument out")
    return read_dicom(path, rank, series) if path.is_dir() else reader(path, rank)


def _placing_reader(path: Path) -> Callable[[Path, int | None], RawImage]:
    name = path.name.lower()
    if path.is_dir():
        return read_dicom
    reader = next((read for end, read in _PLACED.items() if name.endswith(end)), None)
    if reader is not None:
        return reader
    if name.endswith(_DICOM) or is_dicom(path):
        return read_dicom
    known = ", ".join((*_PLACED, *_DICOM[:1], *PICTURE, *ARRAY))
    raise InputError(f"{path.name} is of no kind that can be read ({known}, or a DICOM folder)")


def _float32(path: Path, raw: RawImage) -> NDArray[np.float32]:
    if raw.data.dtype == bool:
        raise InputError(
            f"{path.name} holds true and false, which is a mask and no image; convert it to numbers"
        )
    with np.errstate(over="ignore"):
        data = np.ascontiguousarray(raw.data, dtype=np.float32)
    if raw.data.dtype.itemsize > 4 and not np.isfinite(data).all():
        raise InputError(f"{path.name} holds values beyond 3e38, which 32-bit numbers cannot hold")
    return data


def _require_finite(path: Path, raw: RawImage) -> None:
    finite = np.isfinite(raw.data)
    if finite.all():
        return
    channel, *index = map(int, np.argwhere(~finite)[0])
    raise InputError(
        f"{path.name} holds {int((~finite).sum())} values that are NaN or infinite, the first at "
        f"voxel {tuple(index)} of channel {channel}; replace them before explaining"
    )


def _require_same(first: Path, grid: Grid, other: Path, other_grid: Grid) -> None:
    if not grid.matches(other_grid):
        place = "" if str(grid) != str(other_grid) else ", and lie in different places"
        raise InputError(
            f"{first.name} and {other.name} are not on the same grid, so they cannot be "
            f"channels of one image: {grid} and {other_grid}{place}"
        )


def _names(raws: Sequence[RawImage], names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if names is None:
        return raws[0].channels if len(raws) == 1 else ()
    if isinstance(names, str):
        raise InputError(f"channels is 'first', 'last' or a list of names, not {names!r}")
    if len(names) != count:
        raise InputError(f"{len(names)} channel names for the {count} channels of the image")
    return tuple(names)
