"""Images of other libraries as channels with their place: nibabel, MONAI, TorchIO, SimpleITK, PIL.

Only nibabel and Pillow are imported; the others are recognized by the module of their class.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps
from torch import Tensor

from voxplain.errors import InputError, VoxplainWarning

Array = NDArray[Any]
Affine = NDArray[np.float64]

COLORS = ("red", "green", "blue")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_TO_MILLIMETERS = {1: 1e3, 3: 1e-3}
_DISAGREEMENT = 0.25
"""Voxels between sform and qform that are tolerated."""


@dataclass(frozen=True, eq=False)
class PlacedArray:
    """Channels and where they lie.

    Attributes:
        data: ``(C, *spatial)``, in the type of the source.
        affine: 4x4, voxel index to RAS+ millimeters; in 2-D its third column is the normal. None
            where the source knows no place.
        code: NIfTI sform code, 0 where the orientation in the patient is unknown.
        picture: Whether the axes are the rows and columns of a picture.
        channels: Names, where the source defines them.
    """

    data: Array | Tensor
    affine: Affine | None
    code: int = 1
    picture: bool = False
    channels: tuple[str, ...] = ()


def placed_array(thing: Any) -> PlacedArray | None:
    """An image of another library; None for a bare array or tensor.

    Raises:
        InputError: If its values or its place cannot be used.
    """
    libraries = {kind.__module__.partition(".")[0] for kind in type(thing).__mro__}
    reader = next((read for name, read in _READERS.items() if name in libraries), None)
    return reader(thing) if reader else None


def of_nibabel(file: Any, rank: int | None = None) -> PlacedArray:
    """An image of nibabel; axes beyond the third are channels.

    Args:
        file: NIfTI, MGH or Analyze.
        rank: One slice becomes a 2-D image unless this is 3.

    Raises:
        InputError: If it holds complex numbers or no voxels, or has an invalid affine.
    """
    values = np.asanyarray(file.dataobj)
    if values.dtype.names:  # An RGB file stores one record per voxel.
        values = np.stack([values[name] for name in values.dtype.names], axis=-1)
    if np.iscomplexobj(values):
        raise InputError("it holds complex numbers; store magnitude or phase")
    if values.size == 0:
        raise InputError(f"it holds no voxels: its shape is {values.shape}")
    spatial = values.shape[:3] + (1,) * (3 - values.ndim)
    data = np.moveaxis(values.reshape(*spatial, -1, order="F"), -1, 0)
    affine, code = _nibabel_affine(file)
    return _as_slice(data, affine, code, rank)


def decoded(picture: Pillow.Image, palette: bool = True) -> Array:
    """A picture in its upright orientation as ``(C, rows, columns)``, without transparency.

    Args:
        picture: One page.
        palette: Whether palette indices become the colors that they stand for.
    """
    upright = ImageOps.exif_transpose(picture)
    if upright.mode == "P" and palette:
        upright = upright.convert("RGBA" if "transparency" in upright.info else "RGB")
    elif upright.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        upright = upright.convert("RGB")
    values = np.asarray(upright)
    if values.dtype == bool:
        values = values.astype(np.uint8)
    data = values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)
    if upright.mode in ("LA", "PA", "La", "RGBA", "RGBa"):
        _warn("the picture has a transparency channel; it is left out")
        return data[:-1]
    return data


def _of_pillow(picture: Pillow.Image) -> PlacedArray:
    data = decoded(picture)
    return PlacedArray(data, None, 0, True, COLORS if len(data) == 3 else ())


def _of_monai(tensor: Any) -> PlacedArray | None:
    if not isinstance(tensor, Tensor):
        return None
    data, rank = tensor.as_subclass(Tensor), tensor.ndim - 1
    affine = np.asarray(getattr(tensor, "affine", np.eye(4)), dtype=np.float64)
    if affine.shape not in {(4, 4), (rank + 1, rank + 1)}:
        raise InputError(
            f"a MetaTensor of shape {tuple(tensor.shape)} needs one affine of its {rank} axes, not "
            f"one of shape {affine.shape}"
        )
    # MONAI gives the identity to every tensor that comes from nowhere.
    if np.array_equal(affine, np.eye(len(affine))):
        return PlacedArray(data, None, 0)
    if str(getattr(tensor, "meta", {}).get("space", "RAS")).upper() == "LPS":
        affine = np.diag([-1.0, -1.0, *np.ones(len(affine) - 2)]) @ affine
    return PlacedArray(data, _four_by_four(affine))


def _of_torchio(image: Any) -> PlacedArray:
    return _as_slice(image.data.numpy(), np.asarray(image.affine, dtype=np.float64), 1, None)


def _of_simpleitk(image: Any) -> PlacedArray:
    import SimpleITK  # type: ignore[import-not-found,unused-ignore]

    rank = image.GetDimension()
    values = SimpleITK.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() == 1:
        values = values[..., None]
    direction = np.reshape(image.GetDirection(), (rank, rank))
    affine = lps_affine(direction.T, image.GetSpacing(), image.GetOrigin())
    return PlacedArray(values.T, affine)


def lps_affine(axes: Any, spacing: Any, origin: Any) -> Affine:
    """The affine to RAS+ mm of an image as ITK places it.

    Args:
        axes: One unit vector per axis, ``(rank, rank)``, LPS.
        spacing: Millimeters per voxel and axis.
        origin: Center of the first voxel, LPS mm.

    Raises:
        InputError: If the image has another rank than 2 or 3.
    """
    axes = np.asarray(axes, dtype=np.float64)
    rank = len(axes)
    if rank not in (2, 3):
        raise InputError(f"an image has 2 or 3 spatial axes, not {rank}")
    inner = np.eye(rank + 1)
    inner[:rank, :rank] = axes.T * np.asarray(spacing, dtype=np.float64)
    inner[:rank, rank] = origin
    return np.asarray(LPS_TO_RAS @ _four_by_four(inner))


_READERS: dict[str, Callable[[Any], PlacedArray | None]] = {
    "monai": _of_monai,
    "torchio": _of_torchio,
    "SimpleITK": _of_simpleitk,
    "nibabel": of_nibabel,
    "PIL": _of_pillow,
}


def _four_by_four(affine: Affine) -> Affine:
    """An affine of two or three axes in three dimensions, its third column the normal in 2-D."""
    if len(affine) == 4:
        return affine
    full = np.eye(4)
    full[:2, :2], full[:2, 3] = affine[:2, :2], affine[:2, 2]
    return full


def _nibabel_affine(file: Any) -> tuple[Affine, int]:
    """The affine to RAS+ millimeters, and the code of the form it is taken from."""
    header = file.header
    if not isinstance(file, (nib.Nifti1Pair, nib.Nifti2Pair)):
        knows = isinstance(file, nib.MGHImage) and bool(header["goodRASFlag"])
        if not knows:
            _warn("its header states no orientation: left and right are a guess")
        return np.asarray(file.affine, dtype=np.float64), int(knows)
    sform, qform = header.get_sform(), _qform(header)
    codes = int(header["sform_code"]), int(header["qform_code"])
    if not any(codes):
        _warn(
            "the NIfTI header states no orientation (sform and qform code are 0): left and right "
            "are a guess"
        )
        affine = header.get_base_affine()
    else:
        affine = sform if codes[0] else qform
        if all(codes):
            _compare(sform, qform, file.shape)
    scale = _TO_MILLIMETERS.get(int(header["xyzt_units"]) % 8, 1.0)
    return np.diag([scale, scale, scale, 1]) @ affine, codes[0] or codes[1]


def _qform(header: Any) -> Affine:
    if not header["qform_code"]:
        return np.eye(4)
    try:
        return np.asarray(header.get_qform())
    except HeaderDataError:
        raise InputError("the rotation of its qform is not valid") from None


def _compare(sform: Affine, qform: Affine, shape: tuple[int, ...]) -> None:
    ends = np.array([*shape, 1, 1, 1][:3]) - 1
    corners = np.array(list(np.ndindex(2, 2, 2))) * ends
    difference = sform - qform
    distance = np.linalg.norm(corners @ difference[:3, :3].T + difference[:3, 3], axis=1).max()
    if distance > _DISAGREEMENT * np.linalg.norm(sform[:3, :3], axis=0).min():
        _warn(
            f"sform and qform of the NIfTI header place the image up to {distance:.3g} mm apart; "
            "the sform is used"
        )


def _as_slice(data: Array, affine: Affine, code: int, rank: int | None) -> PlacedArray:
    """``(C, i, j, k)`` as it is, or the slice along its last axis of length one."""
    spatial = data.shape[1:]
    thin = [axis for axis in range(3) if spatial[axis] == 1]
    if rank == 3 or (rank is None and not thin):
        return PlacedArray(data, affine, code)
    if not thin:
        size = " x ".join(map(str, spatial))
        raise InputError(f"it has rank 3 ({size} voxels), and rank 2 was requested")
    through = thin[-1]
    inside = [axis for axis in range(3) if axis != through]
    placed = affine[:, [*inside, through, 3]].copy()
    if not placed[:3, 2].any():  # A 2-D header may leave the slice thickness at 0.
        normal = np.cross(placed[:3, 0], placed[:3, 1])
        placed[:3, 2] = normal / (np.linalg.norm(normal) or 1)
    return PlacedArray(data.squeeze(1 + through), placed, code)


def _warn(text: str) -> None:
    warnings.warn(text, VoxplainWarning, stacklevel=2)
