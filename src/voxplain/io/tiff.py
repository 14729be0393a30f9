"""TIFF files that Pillow reads wrongly: deep color, color planes, axes of OME or ImageJ."""

from __future__ import annotations

import os
import struct
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import InputError, VoxplainWarning
from voxplain.io.bounds import require_bounded

_PAGES = "ZIQ"
_CHANNELS = "SC"
_COLOR = (np.uint8,)
_RGB, _ALPHA = 2, (1, 2)
_GRAY = (np.bool_, np.uint8, np.uint16, np.int16, np.int32, np.float32)
"""Types that Pillow reads as they are, in color and in gray."""


_LAYOUTS = {42: (4, "I", "H", 12), 43: (8, "Q", "Q", 20)}
"""Of TIFF and of BigTIFF: where the offset of the first page is, how offsets and counts of entries
are stored, and the bytes of an entry."""
_MOST_PAGES = 2**16


def require_finite(path: Path) -> None:
    """Refuses a TIFF whose pages follow each other in a circle, or without an end in sight.

    Raises:
        InputError: In one sentence.
    """
    seen: set[int] = set()
    with path.open("rb") as file:
        head = file.read(8)
        order = ">" if head[:2] == b"MM" else "<"
        version = struct.unpack(order + "H", head[2:4])[0] if len(head) == 8 else 0
        if version not in _LAYOUTS:
            return  # no TIFF, which others say
        at, offset_code, count_code, entry = _LAYOUTS[version]
        file.seek(at)
        while page := _number(file, order + offset_code):
            if page in seen or len(seen) == _MOST_PAGES:
                what = "follow each other in a circle" if page in seen else f"exceed {_MOST_PAGES}"
                raise InputError(f"{path.name} is damaged: its pages {what}; save it again")
            seen.add(page)
            file.seek(page)
            file.seek(_number(file, order + count_code) * entry, os.SEEK_CUR)


def _number(file: IO[bytes], code: str) -> int:
    """The number at the place of a file; 0 beyond its end."""
    content = file.read(struct.calcsize(code))
    return int(struct.unpack(code, content)[0]) if len(content) == struct.calcsize(code) else 0


def is_unusual_tiff(path: Path) -> bool:
    """Whether a TIFF states axes, or stores colors, in a way that Pillow does not read."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages[0]
            states_axes = bool(file.is_ome or file.is_imagej)
            is_planar = page.samplesperpixel > 1 and int(page.planarconfig) == 2
            is_deep = page.dtype not in (_COLOR if page.samplesperpixel > 1 else _GRAY)
            return states_axes or is_planar or is_deep
    except tifffile.TiffFileError:
        return False


def read_tiff_pages(path: Path) -> list[NDArray[Any]]:
    """The pages of a TIFF, each ``(C, rows, columns)``, by the axes that it states.

    Samples and channels are channels; planes of depth and pages are pages.

    Raises:
        InputError: If it holds several images, a time axis, or two axes of one kind.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            if not len(file.pages) or len(file.series) != 1:
                raise InputError(f"{path.name} has {len(file.series)} images of different kinds")
            series: Any = file.series[0]
            require_bounded(path, series.shape, series.dtype.itemsize)
            has_alpha = _has_transparency(file.pages[0])
            return _by_axes(path, _decoded(path, series), str(series.axes), has_alpha)
    except tifffile.TiffFileError:
        raise InputError(
            f"{path.name} is not a picture that can be read (PNG, JPEG, TIFF, BMP)"
        ) from None


def _has_transparency(page: Any) -> bool:
    """Whether the last sample of a page is no channel; any sample beyond three colors is none."""
    extra = page.extrasamples
    return bool(extra) and (int(page.photometric) == _RGB or int(extra[-1]) in _ALPHA)


def _decoded(path: Path, series: Any) -> NDArray[Any]:
    try:
        return np.asarray(series.asarray())
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        raise InputError(
            f"{path.name} is compressed in a way that needs the package imagecodecs; save it "
            "without compression"
        ) from None


def _by_axes(path: Path, array: NDArray[Any], axes: str, has_alpha: bool) -> list[NDArray[Any]]:
    long = [axis for axis, size in zip(axes, array.shape, strict=True) if size > 1 or axis in "YX"]
    array = array.reshape([n for a, n in zip(axes, array.shape, strict=True) if n > 1 or a in "YX"])
    channels = [axis for axis in long if axis in _CHANNELS]
    pages = [axis for axis in long if axis in _PAGES]
    if len(channels) > 1 or len(pages) > 1 or len(channels + pages) + 2 != len(long):
        raise InputError(
            f"{path.name} has the axes {axes} {array.shape}, and a picture has rows, columns, "
            "channels and pages; save one image of it"
        )
    order = [long.index(axis) for axis in (*pages, *channels, "Y", "X")]
    moved = array.transpose(order)
    moved = moved if channels else np.expand_dims(moved, -3)
    moved = moved if pages else moved[None]
    if has_alpha and channels == ["S"]:
        warnings.warn(
            "the picture has a transparency channel; it is left out", VoxplainWarning, stacklevel=2
        )
        moved = moved[:, :-1]
    return list(moved)
