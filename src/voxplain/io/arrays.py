"""Reading of NumPy files, whose axes and spacing the caller has to state."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import InputError
from voxplain.image import Grid
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
        InputError: If the file is of another kind, holds objects, or its axes do not fit.
    """
    array = _loaded(path)
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
    grid = Grid.default(data.shape[1:], spacing)
    return RawImage(np.ascontiguousarray(data, dtype=np.float32), grid, {"format": "NumPy"})


def _loaded(path: Path) -> NDArray[Any]:
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content:
            return _single(path, {name: content[name] for name in content.files})
    except (ValueError, OSError, EOFError) as error:
        if "pickle" in str(error).lower():
            raise InputError(
                f"{path.name} is not an array of numbers (it may be pickled objects)"
            ) from None
        raise InputError(
            f"{path.name} is damaged or is no NumPy file ({type(error).__name__})"
        ) from None


def _single(path: Path, arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
    if len(arrays) != 1:
        names = ", ".join(sorted(arrays)) or "none"
        raise InputError(f"{path.name} must hold one array and holds {len(arrays)}: {names}")
    return next(iter(arrays.values()))
