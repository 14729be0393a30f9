"""Reading of NRRD: ``.nrrd`` with its voxels, or ``.nhdr`` with a file of voxels beside it."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import InputError, VoxplainWarning
from voxplain.io.bounds import beside, read_exactly, require_bounded
from voxplain.io.raw import RawImage
from voxplain.objects import PlacedArray

_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_SPACES = {
    "RAS": ("right-anterior-superior", "ras"),
    "LAS": ("left-anterior-superior", "las"),
    "LPS": ("left-posterior-superior", "lps"),
}
_SIGNS = {"RAS": (1, 1, 1), "LAS": (-1, 1, 1), "LPS": (-1, -1, 1)}
_SPATIAL = ("domain", "space", "")
_LONGEST_LINE = 10_000
_MOST_LINES = 1_000

Fields = dict[str, str]


def read_nrrd(path: Path, rank: int | None) -> RawImage:
    """An image as 3D Slicer writes it: ``(C, i, j[, k])`` in the order of the file.

    Raises:
        InputError: If it is no NRRD, is cut off, holds no image of two or three axes, or keeps its
            voxels as text, in another folder or in several files.
    """
    with path.open("rb") as file:
        fields = _header(path, file)
        shape = [int(size) for size in _required(path, fields, "sizes").split()]
        dtype = _dtype(path, fields)
        size = require_bounded(path, shape, dtype.itemsize)
        name = fields.get("data file", fields.get("datafile"))
        if name is None:
            content = _voxels(path, file, fields, size)
        else:
            voxels = beside(path, name)
            with voxels.open("rb") as stream:
                content = _voxels(voxels, stream, fields, size)
    values = np.frombuffer(content, dtype).reshape(shape, order="F")
    return RawImage.of(_placed(path, values, fields, rank), "NRRD")


def _header(path: Path, file: IO[bytes]) -> Fields:
    """The fields up to the first empty line, by their names in lower case."""
    if not file.readline(_LONGEST_LINE).startswith(b"NRRD000"):
        raise InputError(f"{path.name} is not an NRRD file: its header is something else")
    fields: Fields = {}
    for _ in range(_MOST_LINES):
        line = file.readline(_LONGEST_LINE).decode("latin-1").rstrip("\r\n")
        if not line:
            break
        key, mark, value = line.partition(":")
        if mark and not line.startswith("#") and not value.startswith("="):
            fields[key.strip().lower()] = value.strip()
    return fields


def _required(path: Path, fields: Fields, name: str) -> str:
    if name not in fields:
        raise InputError(f"{path.name} is no complete NRRD: its header lacks {name!r}")
    return fields[name]


def _dtype(path: Path, fields: Fields) -> np.dtype[Any]:
    kind = _required(path, fields, "type").lower()
    code = next((code for code, names in _TYPES.items() if kind in names), None)
    if code is None:
        raise InputError(f"{path.name} holds values of type {kind!r}, which are no numbers")
    order = fields.get("endian", sys.byteorder).lower()
    return np.dtype((">" if order == "big" else "<") + code)


def _voxels(path: Path, stream: IO[bytes], fields: Fields, size: int) -> bytes:
    for _ in range(min(int(fields.get("line skip", fields.get("lineskip", 0))), _MOST_LINES)):
        stream.readline(_LONGEST_LINE)
    skip = int(fields.get("byte skip", fields.get("byteskip", 0)))
    if skip == -1:  # The voxels are the end of the file.
        stream.seek(-size, 2)
        skip = 0
    with _unpacked(path, stream, _required(path, fields, "encoding").lower()) as plain:
        read_exactly(path, plain, skip)
        return read_exactly(path, plain, size)


@contextlib.contextmanager
def _unpacked(path: Path, stream: IO[bytes], encoding: str) -> Iterator[IO[bytes]]:
    if encoding == "raw":
        yield stream
    elif encoding in ("gzip", "gz"):
        with gzip.GzipFile(fileobj=stream, mode="rb") as packed:
            yield packed  # type: ignore[misc]
    elif encoding in ("bzip2", "bz2"):
        with bz2.BZ2File(stream, "rb") as packed_bz2:
            yield packed_bz2
    else:
        raise InputError(f"{path.name} is encoded as {encoding!r}; save it as raw or gzip")


def _placed(path: Path, values: NDArray[Any], fields: Fields, rank: int | None) -> PlacedArray:
    kinds = fields.get("kinds", "").lower().split() or [""] * values.ndim
    directions = _vectors(fields.get("space directions", ""))
    spatial = [
        axis
        for axis, kind in enumerate(kinds)
        if kind in _SPATIAL and (not directions or directions[axis] is not None)
    ]
    other = [axis for axis in range(values.ndim) if axis not in spatial]
    if len(other) > 1 or len(spatial) not in (2, 3) or rank not in (None, len(spatial)):
        raise InputError(
            f"{path.name} has {len(spatial)} spatial axes among {values.shape} (kinds "
            f"{' '.join(kinds).strip() or 'not stated'}), which is no image of rank "
            f"{rank or '2 or 3'}"
        )
    data = np.moveaxis(values, other[0], 0) if other else values[None]
    affine, code = _affine(path, fields, [directions[axis] for axis in spatial if directions])
    if not directions:
        spacings = fields.get("spacings", "").split() or ["1"] * values.ndim
        np.fill_diagonal(affine[:3, :3], [*(float(spacings[axis]) for axis in spatial), 1.0][:3])
    if not code:
        warnings.warn(
            f"{path.name} states no orientation: left and right are a guess",
            VoxplainWarning,
            stacklevel=2,
        )
    return PlacedArray(data, affine, code)


def _affine(
    path: Path, fields: Fields, directions: list[list[float] | None]
) -> tuple[NDArray[np.float64], int]:
    """The affine to RAS+ mm, and 1; or 0 where the file names no space, which ITK takes as LPS."""
    affine = np.eye(4)
    if not directions:
        return affine, 0
    space = fields.get("space", "").lower()
    name = next((name for name, names in _SPACES.items() if space in names), None)
    if space and name is None:
        raise InputError(f"{path.name} lies in the space {space!r}; known: {', '.join(_SPACES)}")
    origin = (_vectors(fields.get("space origin", "")) or [None])[0] or [0.0, 0.0, 0.0]
    for column, vector in zip((*range(len(directions)), 3), (*directions, origin), strict=True):
        affine[: len(vector or ()), column] = vector
        affine[len(vector or ()) : 3, column] = 0
    if len(directions) == 2:
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / (np.linalg.norm(normal) or 1)
    return np.diag([*_SIGNS[name or "LPS"], 1.0]) @ affine, 1 if name else 0


def _vectors(text: str) -> list[list[float] | None]:
    """Vectors such as ``none (1,0,0) (0,1,0)``."""
    found = re.findall(r"none|\([^)]*\)", text)
    return [
        None if word == "none" else [float(part) for part in word[1:-1].split(",")]
        for word in found
    ]
