"""Reading of an image from any supported file, or from several as its channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from voxplain.errors import InputError
from voxplain.image import Grid, Image
from voxplain.io.arrays import read_array
from voxplain.io.dicom import is_dicom, read_dicom
from voxplain.io.nifti import read_nifti
from voxplain.io.picture import read_picture
from voxplain.io.raw import RawImage

Spacing = float | tuple[float, ...]
Channels = Literal["first", "last"] | Sequence[str]

NIFTI = (".nii", ".nii.gz")
PICTURE = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
ARRAY = (".npy", ".npz")
_DICOM = (".dcm", ".dicom", ".ima")


def read_image(
    path: str | Path | Sequence[str | Path],
    *,
    channels: Channels | None = None,
    rank: Literal[2, 3] | None = None,
    spacing: Spacing | None = None,
) -> Image:
    """An image with its place in the patient, and without the patient's identity.

    ==========================  =============================================================
    source                      data
    ==========================  =============================================================
    NIfTI                       ``(C, i, j, k)`` in the order of the file; a 4th axis is channels
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

    Raises:
        InputError: If a file cannot be read, or several do not fit together.
    """
    paths = [Path(path)] if isinstance(path, (str, Path)) else [Path(file) for file in path]
    if not paths:
        raise InputError("no image file was given")
    axis = channels if channels in ("first", "last") else None
    raws = [read_raw(file, axis, rank, spacing) for file in paths]
    for other, raw in zip(paths[1:], raws[1:], strict=True):
        _require_same(paths[0], raws[0].grid, other, raw.grid)
    data = np.concatenate([raw.data for raw in raws])
    return Image(
        torch.from_numpy(np.ascontiguousarray(data)),
        raws[0].grid,
        channels=_names(raws, None if axis else channels, len(data)),
        source=dict(raws[0].source),
    )


def read_raw(
    path: Path, axis: Literal["first", "last"] | None, rank: int | None, spacing: Spacing | None
) -> RawImage:
    """The content of one file, all values finite.

    Args:
        path: A file or a DICOM folder.
        axis: Channel axis of NumPy files; None for none.
        rank: 2 or 3 where the file leaves it open.
        spacing: Millimeters per pixel of pictures and NumPy files.

    Raises:
        InputError: If the file does not exist, is of no known kind, or holds NaN or infinity.
    """
    if not path.exists():
        raise InputError(f"there is no file {path}")
    kind = _kind(path)
    if spacing is not None and kind in ("nifti", "dicom"):
        raise InputError(f"{path.name} states its own spacing; leave the argument out")
    if kind == "nifti":
        raw = read_nifti(path, rank)
    elif kind == "dicom":
        raw = read_dicom(path, rank)
    elif kind == "picture":
        raw = read_picture(path, rank, spacing)
    else:
        raw = read_array(path, axis, rank, spacing)
    _require_finite(path, raw)
    return raw


def _kind(path: Path) -> Literal["nifti", "dicom", "picture", "array"]:
    if path.is_dir():
        return "dicom"
    name = path.name.lower()
    if name.endswith(NIFTI):
        return "nifti"
    if name.endswith(PICTURE):
        return "picture"
    if name.endswith(ARRAY):
        return "array"
    if name.endswith(_DICOM) or is_dicom(path):
        return "dicom"
    known = ", ".join((*NIFTI, *_DICOM[:1], *PICTURE, *ARRAY))
    raise InputError(f"{path.name} is of no kind that can be read ({known}, or a DICOM folder)")


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
