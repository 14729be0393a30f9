"""Reading of MetaImage: ``.mha`` with its voxels, or ``.mhd`` with a file of voxels beside it."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import InputError
from voxplain.io.bounds import beside, opened, read_exactly, require_bounded
from voxplain.io.raw import RawImage
from voxplain.objects import PlacedArray, lps_affine

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_LONGEST_LINE = 10_000
_MOST_LINES = 1_000

Fields = dict[str, str]


def read_metaimage(path: Path, rank: int | None) -> RawImage:
    """An image of ITK: ``(C, i, j[, k])`` in the order of the file.

    Raises:
        InputError: If it is no MetaImage, is cut off, holds no image of two or three axes, or
            keeps its voxels in another folder or in several files.
    """
    with path.open("rb") as file:
        fields = _header(path, file)
        shape = [int(size) for size in _required(path, fields, "DimSize").split()]
        channels = int(fields.get("ElementNumberOfChannels", 1))
        dtype = _dtype(path, fields)
        size = require_bounded(path, (channels, *shape), dtype.itemsize)
        name = _required(path, fields, "ElementDataFile")
        if name.upper() == "LOCAL":
            content = _voxels(path, file, fields, size)
        else:
            voxels = beside(path, name)
            with opened(voxels) as stream:
                content = _voxels(voxels, _after_header(voxels, stream, fields, size), fields, size)
    values = np.frombuffer(content, dtype).reshape((channels, *shape), order="F")
    return RawImage.of(_placed(values, fields, rank), "MetaImage")


def _header(path: Path, file: IO[bytes]) -> Fields:
    """The lines up to and including the one that says where the voxels are."""
    fields: Fields = {}
    for _ in range(_MOST_LINES):
        line = file.readline(_LONGEST_LINE).decode("latin-1")
        key, mark, value = line.partition("=")
        if not mark:
            break
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            return fields
    raise InputError(f"{path.name} is no MetaImage: its header does not say where the voxels are")


def _required(path: Path, fields: Fields, *names: str) -> str:
    found = next((fields[name] for name in names if name in fields), None)
    if found is None:
        raise InputError(f"{path.name} is no complete MetaImage: its header lacks {names[0]}")
    return found


def _dtype(path: Path, fields: Fields) -> np.dtype[Any]:
    kind = _required(path, fields, "ElementType")
    if kind not in _TYPES:
        raise InputError(f"{path.name} holds values of type {kind}; known: {', '.join(_TYPES)}")
    if not _is_true(fields, "BinaryData", default=True):
        raise InputError(f"{path.name} holds its voxels as text; save it as binary")
    is_big = _is_true(fields, "BinaryDataByteOrderMSB") or _is_true(fields, "ElementByteOrderMSB")
    return np.dtype((">" if is_big else "<") + _TYPES[kind])


def _is_true(fields: Fields, name: str, default: bool = False) -> bool:
    return fields.get(name, str(default)).lower() in ("true", "1")


def _after_header(path: Path, stream: IO[bytes], fields: Fields, size: int) -> IO[bytes]:
    skip = int(fields.get("HeaderSize", 0))
    if skip == -1:  # The voxels are the end of the file.
        skip = path.stat().st_size - size
    read_exactly(path, stream, max(0, skip))
    return stream


def _voxels(path: Path, stream: IO[bytes], fields: Fields, size: int) -> bytes:
    if not _is_true(fields, "CompressedData"):
        return read_exactly(path, stream, size)
    # Not more than the header promises is unpacked.
    return read_exactly(
        path, io.BytesIO(zlib.decompressobj(32 + 15).decompress(stream.read(), size)), size
    )


def _placed(values: NDArray[Any], fields: Fields, rank: int | None) -> PlacedArray:
    dimensions = values.ndim - 1
    if rank not in (None, dimensions):
        raise InputError(f"it has rank {dimensions}, and rank {rank} was requested")
    axes = _numbers(fields, ("TransformMatrix", "Rotation", "Orientation"), np.eye(dimensions))
    spacing = _numbers(fields, ("ElementSpacing", "ElementSize"), np.ones(dimensions))
    origin = _numbers(fields, ("Offset", "Position", "Origin"), np.zeros(dimensions))
    affine = lps_affine(axes.reshape(dimensions, dimensions), spacing, origin)
    return PlacedArray(values, affine)


def _numbers(
    fields: Fields, names: tuple[str, ...], default: NDArray[np.float64]
) -> NDArray[np.float64]:
    text = next((fields[name] for name in names if name in fields), None)
    return default if text is None else np.array(text.split(), dtype=np.float64)
