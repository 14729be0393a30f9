"""Reading of NIfTI files, with one affine from sform, qform or pixel sizes."""

from __future__ import annotations

import gzip
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from voxplain.errors import InputError, VoxplainWarning
from voxplain.image import Grid
from voxplain.io.raw import RawImage

_UNREADABLE = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error)
_TO_MILLIMETERS = {1: 1e3, 3: 1e-3}
_DISAGREEMENT = 0.25
"""Voxels between sform and qform that are tolerated."""


def read_nifti(path: Path, rank: int | None) -> RawImage:
    """A NIfTI-1 or NIfTI-2 file, compressed or not, independent of its suffix.

    Axes beyond the third are channels. One slice becomes a 2-D image unless ``rank`` is 3.

    Raises:
        InputError: If the file is no NIfTI, is cut off, or has an invalid affine.
    """
    file = _parsed(path)
    array = _array(path, file)
    try:
        affine, code = _affine(file)
        return _placed(path, array, affine, code, rank)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None


def _parsed(path: Path) -> Any:
    content = _inflated(path)
    sizes = (
        {struct.unpack(order + "i", content[:4])[0] for order in "<>"}
        if len(content) > 3
        else set()
    )
    if not sizes & {348, 540}:
        raise InputError(f"{path.name} is not a NIfTI file: its header is something else")
    kind = nib.Nifti1Image if 348 in sizes else nib.Nifti2Image
    try:
        return kind.from_bytes(content)
    except _UNREADABLE as error:
        raise _cut_off(path, error) from None


def _inflated(path: Path) -> bytes:
    content = path.read_bytes()
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except _UNREADABLE as error:
        raise _cut_off(path, error) from None


def _cut_off(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path.name} is damaged or cut off ({type(error).__name__}); copy or convert it again"
    )


def _array(path: Path, file: Any) -> NDArray[np.float32]:
    try:
        raw = np.asanyarray(file.dataobj)
    except _UNREADABLE as error:
        raise _cut_off(path, error) from None
    if raw.dtype.names:  # An RGB file stores one record per voxel.
        raw = np.stack([raw[name] for name in raw.dtype.names], axis=-1)
    if np.iscomplexobj(raw):
        raise InputError(f"{path.name} holds complex numbers; store magnitude or phase")
    if raw.size == 0:
        raise InputError(f"{path.name} holds no voxels: its shape is {raw.shape}")
    return np.asarray(raw, dtype=np.float32)


def _affine(file: Any) -> tuple[NDArray[np.float64], int]:
    """The affine to RAS+ millimeters, and the code of the form it is taken from."""
    header = file.header
    sform, qform = header.get_sform(), _qform(header)
    codes = int(header["sform_code"]), int(header["qform_code"])
    if not any(codes):
        warnings.warn(
            "the NIfTI header states no orientation (sform and qform code are 0): left and right "
            "are a guess",
            VoxplainWarning,
            stacklevel=2,
        )
        affine = header.get_base_affine()
    else:
        affine = sform if codes[0] else qform
        if all(codes):
            _compare(sform, qform, file.shape)
    scale = _TO_MILLIMETERS.get(int(header["xyzt_units"]) % 8, 1.0)
    return np.diag([scale, scale, scale, 1]) @ affine, codes[0] or codes[1]


def _qform(header: Any) -> NDArray[np.float64]:
    if not header["qform_code"]:
        return np.eye(4)
    try:
        return np.asarray(header.get_qform())
    except HeaderDataError:
        raise InputError("the rotation of its qform is not valid") from None


def _compare(
    sform: NDArray[np.float64], qform: NDArray[np.float64], shape: tuple[int, ...]
) -> None:
    size = (*shape, 1, 1, 1)[:3]
    forms = [Grid(size, form) for form in (sform, qform)]
    distance = np.linalg.norm(forms[0].corners - forms[1].corners, axis=1).max()
    if distance > _DISAGREEMENT * min(forms[0].spacing):
        warnings.warn(
            f"sform and qform of the NIfTI header place the image up to {distance:.3g} mm apart; "
            "the sform is used",
            VoxplainWarning,
            stacklevel=2,
        )


def _placed(
    path: Path, array: NDArray[np.float32], affine: NDArray[np.float64], code: int, rank: int | None
) -> RawImage:
    spatial = array.shape[:3] + (1,) * (3 - array.ndim)
    data = np.moveaxis(array.reshape(*spatial, -1, order="F"), -1, 0)
    thin = [axis for axis in range(3) if spatial[axis] == 1]
    if rank == 3 or (rank is None and not thin):
        return RawImage(data, Grid(spatial, affine, code=code), {"format": "NIfTI"})
    if not thin:
        size = " x ".join(map(str, spatial))
        raise InputError(f"{path.name} has rank 3 ({size} voxels), and rank 2 was requested")
    return RawImage(
        data.squeeze(1 + thin[-1]), _slice(spatial, affine, code, thin[-1]), {"format": "NIfTI"}
    )


def _slice(shape: tuple[int, ...], affine: NDArray[np.float64], code: int, through: int) -> Grid:
    """The grid of one slice, with its normal in the third column."""
    inside = [axis for axis in range(3) if axis != through]
    placed = affine[:, [*inside, through, 3]].copy()
    if not placed[:3, 2].any():  # A 2-D header may leave the slice thickness at 0.
        normal = np.cross(placed[:3, 0], placed[:3, 1])
        placed[:3, 2] = normal / (np.linalg.norm(normal) or 1)
    return Grid(tuple(shape[axis] for axis in inside), placed, code=code)
