"""Writing of maps, de-identified images and label maps as NIfTI."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from voxplain.errors import InputError
from voxplain.image import Grid, Image
from voxplain.records.atomic import atomic_write
from voxplain.records.sidecar import Sidecar

_DISPLAY_PERCENTILE = 99.5
_ALIGNED = 2
"""The NIfTI code of an affine that is aligned with another scan."""


def write_map(values: Tensor, grid: Grid, path_stem: str | Path, sidecar: Sidecar) -> Path:
    """Writes a map and its sidecar: ``<stem>.nii.gz``, ``<stem>.json``, in 2-D also ``<stem>.npy``.

    The map is float32 with several channels last. The display range ends at the 99.5 % quantile of
    the absolute value, and is symmetric for signed maps. Equal maps give equal bytes.

    Args:
        values: ``(C, *spatial)``.
        grid: Grid of the map: the source grid or that of a layer.
        path_stem: Folder and name without suffix, see :func:`voxplain.io.map_name`.
        sidecar: Description of the map.

    Returns:
        The NIfTI file, which is written after its sidecar.

    Raises:
        InputError: If the map is not on the grid, or holds NaN or infinity.
    """
    array = _checked(values, grid).astype(np.float32)
    stem = Path(path_stem)
    atomic_write(_named(stem, ".json"), sidecar.to_json() + "\n")
    if grid.rank == 2:
        atomic_write(_named(stem, ".npy"), _npy(array))
    file = _nifti(array, grid)
    file.header["descrip"] = sidecar.method.encode()[:79]
    limit = _display_limit(array)
    file.header["cal_max"] = limit
    file.header["cal_min"] = -limit if sidecar.sign == "signed" else 0
    return atomic_write(_named(stem, ".nii.gz"), _compressed(file))


def write_image(image: Image, path: str | Path) -> Path:
    """Writes the channels of an image without the metadata of its source file.

    Whole numbers are stored as int16, others too, with a slope, where the error stays below 0.1 %
    of the range; else the type is float32. The window for display that the source states is kept.

    Args:
        image: Usually the image before preprocessing.
        path: Ends in ``.nii.gz``.
    """
    array = _checked(image.data, image.grid).astype(np.float32)
    stored, slope, intercept = _as_int16(array)
    file = _nifti(stored, image.grid)
    if stored.dtype == np.int16:
        file.header.set_slope_inter(slope, intercept)
    # The window for display that a DICOM file states.
    if len(array) == 1 and "window" in image.source:
        file.header["cal_min"], file.header["cal_max"] = image.source["window"]
    return atomic_write(path, _compressed(file))


def write_labels(labels: Tensor, grid: Grid, path: str | Path) -> Path:
    """Writes a label map ``(*spatial)`` in the smallest integer type that holds its labels.

    Raises:
        InputError: If the labels are not on the grid.
    """
    array = _checked(labels[None], grid)
    low, high = int(array.min()), int(array.max())
    kinds = (np.uint8, np.int16, np.int32, np.int64)
    kind = next(k for k in kinds if np.iinfo(k).min <= low and high <= np.iinfo(k).max)
    return atomic_write(path, _compressed(_nifti(array.astype(kind), grid)))


def _checked(data: Tensor, grid: Grid) -> NDArray[Any]:
    if tuple(data.shape[1:]) != grid.shape:
        raise InputError(
            f"an array of shape {tuple(data.shape)} does not lie on the grid {grid.shape}"
        )
    data = data.detach().cpu()
    array: NDArray[Any] = (data.float() if data.is_floating_point() else data).numpy()
    not_finite = int((~np.isfinite(array)).sum())
    if not_finite:
        raise InputError(
            f"{not_finite} of {array.size} values are NaN or infinite; such a map is not written"
        )
    return array


def _nifti(array: NDArray[Any], grid: Grid) -> Any:
    """``(C, *spatial)`` as a file with a new header, sform and qform, and no extensions."""
    volume = array.reshape(len(array), *grid.shape, *(1,) * (3 - grid.rank))
    file = nib.Nifti1Image(
        volume[0] if len(volume) == 1 else np.moveaxis(volume, 0, -1),
        grid.affine,
        dtype=array.dtype,
    )
    code = _code(grid, file.header)
    file.set_sform(grid.affine, code)
    # A sheared affine (tilted gantry) has no qform; an approximate one would mislead.
    file.set_qform(grid.affine, 0 if _sheared(grid) else code)
    file.header.set_xyzt_units("mm" if grid.unit == "mm" else "unknown")
    return file


def _code(grid: Grid, header: Any) -> int:
    """The sform code of the source.

    A picture keeps 0, as it has no sides. A volume keeps it only if readers then assume the same
    affine: else the maps of its layers would not lie on it.
    """
    is_assumed = np.allclose(header.get_base_affine(), grid.affine, atol=1e-4)
    return grid.code if grid.code or grid.rank == 2 or is_assumed else _ALIGNED


def _sheared(grid: Grid) -> bool:
    axes = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    return not np.allclose(axes.T @ axes, np.eye(3), atol=1e-4)


def _compressed(file: Any) -> bytes:
    # Without name and time, equal maps give equal bytes on every machine.
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=3, mtime=0) as stream:
        stream.write(file.to_bytes())
    return buffer.getvalue()


def _npy(array: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _display_limit(array: NDArray[np.float32]) -> float:
    magnitude = np.abs(array)
    return float(np.percentile(magnitude, _DISPLAY_PERCENTILE)) or float(magnitude.max())


def _as_int16(array: NDArray[np.float32]) -> tuple[NDArray[Any], float, float]:
    """Stored values, slope and intercept."""
    low, high = float(array.min()), float(array.max())
    if np.array_equal(array, np.round(array)) and low >= -32768 and high <= 32767:
        return array.astype(np.int16), 1.0, 0.0
    slope, intercept = (high - low) / 65534, (high + low) / 2
    if slope == 0 or not np.isfinite(slope):
        return array, 1.0, 0.0
    stored = np.round((array.astype(np.float64) - intercept) / slope).astype(np.int16)
    # The header keeps slope and intercept in float32, so the error is that of a reader.
    read = stored * np.float64(np.float32(slope)) + np.float64(np.float32(intercept))
    if np.abs(read - array).max() > 1e-3 * (high - low):
        return array, 1.0, 0.0
    return stored, slope, intercept


def _named(stem: Path, suffix: str) -> Path:
    return stem.parent / (stem.name + suffix)
