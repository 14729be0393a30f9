"""Reading of what nibabel reads: NIfTI in one file or two, Analyze, and MGH of FreeSurfer."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import nibabel as nib

from voxplain.errors import InputError, VoxplainWarning
from voxplain.io.bounds import opened, read_exactly, require_bounded
from voxplain.io.raw import RawImage
from voxplain.objects import of_nibabel

_HEADERS = {348: nib.Nifti1Image, 540: nib.Nifti2Image}
_MAX_OFFSET = 2**28


def read_nifti(path: Path, rank: int | None) -> RawImage:
    """A NIfTI-1 or NIfTI-2 file, compressed or not, independent of its suffix.

    Axes beyond the third are channels. One slice becomes a 2-D image unless ``rank`` is 3. What
    follows after the voxels that the header promises is not read.

    Raises:
        InputError: If the file is no NIfTI, is cut off, or has an invalid affine.
    """
    return RawImage.of(of_nibabel(_single_file(path), rank), "NIfTI")


def read_nifti_pair(path: Path, rank: int | None) -> RawImage:
    """A NIfTI or Analyze pair of ``.hdr`` and ``.img``, named by either.

    Raises:
        InputError: As :func:`read_nifti`, or if one of the two is missing.
    """
    for suffix in (".hdr", ".img"):
        if not path.with_suffix(suffix).exists():
            raise InputError(f"{path.name} is half of a pair, and there is no {suffix} beside it")
    return RawImage.of(of_nibabel(_loaded(path), rank), "NIfTI pair")


def read_mgh(path: Path, rank: int | None) -> RawImage:
    """A volume of FreeSurfer, ``.mgh`` or ``.mgz``.

    Raises:
        InputError: As :func:`read_nifti`.
    """
    return RawImage.of(of_nibabel(_loaded(path), rank), "MGH")


def _single_file(path: Path) -> Any:
    with opened(path) as stream:
        start = stream.read(540)
        sizes = {int.from_bytes(start[:4], order) for order in ("little", "big")}
        kind = next((kind for size, kind in _HEADERS.items() if size in sizes), None)
        if kind is None:
            raise InputError(f"{path.name} is not a NIfTI file: its header is something else")
        header = kind.header_class(start[: kind.header_class.template_dtype.itemsize])
        promised = require_bounded(path, header.get_data_shape(), header.get_data_dtype().itemsize)
        header["vox_offset"] = _offset(path, header)  # else nibabel takes 0 for the place of voxels
        end = int(header["vox_offset"]) + promised
        content = header.binaryblock + start[len(header.binaryblock) :]
        content += read_exactly(path, stream, max(0, end - len(start)))
        if len(start) == 540 and stream.read(1):
            warnings.warn(
                f"{path.name} holds more than its header promises; the rest is not read",
                VoxplainWarning,
                stacklevel=2,
            )
    return kind.from_bytes(content)


def _offset(path: Path, header: Any) -> int:
    """The byte at which the voxels begin."""
    offset = int(header.get_data_offset()) or int(header["sizeof_hdr"]) + 4
    if not int(header["sizeof_hdr"]) <= offset <= _MAX_OFFSET:
        raise InputError(f"{path.name} is damaged: its voxels begin at byte {offset}")
    return offset


def _loaded(path: Path) -> Any:
    file: Any = nib.load(path)
    require_bounded(path, file.shape, file.get_data_dtype().itemsize)
    return file
