"""Reading of NumPy files, whose axes and spacing the caller has to state."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from voxplain.errors import InputError
from voxplain.image import Grid
from voxplain.io.bounds import read_exactly, require_bounded
from voxplain.io.raw import RawImage

Axis = Literal["first", "last"]


def read_array(
    path: Path, axis: Axis | None, rank: int | None, spacing: tuple[float, ...] | float | None
) -> RawImage:
    """A ``.npy`` file, or an ``.npz`` file of one array.

    Args:
        path: The file.
        axis: Which axis holds the channels; None if the array has no channel axis.
        rank: Expected number of spatial axes; 2 or 3 if None.
        spacing: Millimeters per voxel; None for a grid in pixels.

    Raises:
        InputError: If the file holds objects or several arrays, or its axes do not fit.
    """
    array = load_array(path)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path.name} holds {array.dtype}, and an image needs real numbers")
    spatial = array.ndim - (axis is not None)
    if spatial != (rank or min(max(spatial, 2), 3)):
        raise InputError(
            f"{path.name} has {array.ndim} axes {array.shape}, which is no image of rank "
            f"{rank or '2 or 3'}{' without a channel axis' if axis is None else ''}; say "
            "channels='first', channels='last' or the rank"
        )
    data = array[None] if axis is None else np.moveaxis(array, -1 if axis == "last" else 0, 0)
    return RawImage(data, Grid.default(data.shape[1:], spacing), {"format": "NumPy"})


def load_array(path: Path) -> NDArray[Any]:
    """The array of a ``.npy`` file, or of an ``.npz`` file of one array; read-only.

    Raises:
        InputError: If the file holds objects or several arrays, or is cut off.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return _array(path, file)
    with zipfile.ZipFile(path) as packed:
        names = sorted(name.removesuffix(".npy") for name in packed.namelist())
        if len(names) != 1:
            listed = ", ".join(names) or "none"
            raise InputError(f"{path.name} must hold one array and holds {len(names)}: {listed}")
        with packed.open(packed.namelist()[0]) as file:
            return _array(path, file)


def _array(path: Path, file: IO[bytes]) -> NDArray[Any]:
    """One array, of which nothing is read before its header is known to be sound."""
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = read(file)
    if dtype.hasobject:
        raise InputError(f"{path.name} holds pickled objects, and an image needs real numbers")
    content = read_exactly(path, file, require_bounded(path, shape, dtype.itemsize))
    return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")
