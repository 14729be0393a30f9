"""Reading of PNG, JPEG, TIFF and BMP as ``(C, rows, columns)``, without their metadata."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from voxplain.errors import InputError, VoxplainWarning
from voxplain.image import Grid
from voxplain.io.raw import RawImage

# Lossy compression changes black and white a little.
_BLACK, _WHITE = 5, 250
_COLORS = ("red", "green", "blue")
_DAMAGED = (OSError, ValueError, SyntaxError, EOFError, Pillow.DecompressionBombError)


def read_picture(
    path: Path, rank: int | None, spacing: tuple[float, ...] | float | None
) -> RawImage:
    """A picture in its stored orientation; gray is one channel, 16 bits are kept.

    Print resolution (DPI) is no size in the patient and is ignored. A TIFF of several pages is a
    volume ``(rows, columns, pages)`` if ``rank`` is 3.

    Raises:
        InputError: If the file is no picture, is damaged, or has several pages and ``rank`` is not
            3.
    """
    pages = _pages(path)
    if len(pages) == 1 and rank != 3:
        array = pages[0]
    elif rank == 3:
        array = _stacked(path, pages)
    else:
        raise InputError(f"{path.name} has {len(pages)} pages; say rank 3 if they are a volume")
    array = _without_alpha(array)
    return RawImage(
        np.ascontiguousarray(array, dtype=np.float32),
        picture_grid(array.shape[1:], spacing),
        {"format": "picture"},
        _COLORS if len(array) == 3 else (),
    )


def read_indices(path: Path) -> NDArray[Any]:
    """The labels ``(rows, columns)`` of a mask picture: palette indices or gray values.

    In a picture of black and white alone these become 0 and 1.

    Raises:
        InputError: If the picture has colors that are no palette.
    """
    array = _without_alpha(_pages(path, palette=False)[0])
    if (array != array[:1]).any():
        raise InputError(f"{path.name} is colored; a mask needs one gray value per label")
    labels: NDArray[Any] = array[0]
    black_and_white = labels.max() >= _WHITE and ((labels <= _BLACK) | (labels >= _WHITE)).all()
    return (labels >= _WHITE).astype(labels.dtype) if black_and_white else labels


def picture_grid(shape: tuple[int, ...], spacing: tuple[float, ...] | float | None) -> Grid:
    """A grid with rows toward P and columns toward L, as viewers display a picture upright."""
    default = Grid.default(shape, spacing)
    upright = np.eye(4)
    upright[:2, :2] = [[0, -1], [-1, 0]]
    return Grid(shape, upright @ default.affine, unit=default.unit, code=0)


def _pages(path: Path, palette: bool = True) -> list[NDArray[Any]]:
    """The pages, each ``(C, rows, columns)``."""
    try:
        with Pillow.open(path) as picture:
            if picture.format == "TIFF" and _deep_color_tiff(picture):
                return _unusual_tiff(path)
            if picture.format == "PNG" and _deep_color_png(path):
                _warn("the color PNG has 16 bits per channel; 8 of them are read")
            pages = []
            for index in range(getattr(picture, "n_frames", 1)):
                picture.seek(index)
                pages.append(_decoded(picture, palette))
            return pages
    except UnidentifiedImageError:
        return _unusual_tiff(path)
    except _DAMAGED as error:
        raise InputError(f"{path.name} is damaged or cut off ({type(error).__name__})") from None


def _decoded(picture: Pillow.Image, palette: bool) -> NDArray[Any]:
    upright = ImageOps.exif_transpose(picture)
    if upright.mode == "P" and palette:
        upright = upright.convert("RGBA" if "transparency" in upright.info else "RGB")
    elif upright.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        upright = upright.convert("RGB")
    array = np.asarray(upright)
    return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)


def _unusual_tiff(path: Path) -> list[NDArray[Any]]:
    """Pages of TIFF files that Pillow cannot read, or reads with 8 of 16 bits."""
    unknown = InputError(f"{path.name} is not a picture that can be read (PNG, JPEG, TIFF, BMP)")
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise unknown
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            arrays = [page.asarray() for page in file.pages]
    except (tifffile.TiffFileError, *_DAMAGED):
        raise unknown from None
    return [array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0) for array in arrays]


def _stacked(path: Path, pages: list[NDArray[Any]]) -> NDArray[Any]:
    if len({page.shape for page in pages}) != 1:
        raise InputError(f"{path.name} has pages of different sizes, which are no volume")
    return np.stack(pages, axis=-1)


def _without_alpha(array: NDArray[Any]) -> NDArray[Any]:
    if len(array) not in (2, 4):
        return array
    _warn("the picture has a transparency channel; it is left out")
    return array[:-1]


def _deep_color_tiff(picture: Any) -> bool:
    bits = picture.tag_v2.get(258, (8,))  # BitsPerSample
    return len(bits) > 1 and max(bits) > 8


def _deep_color_png(path: Path) -> bool:
    header = path.read_bytes()[:26]
    return len(header) == 26 and header[24] == 16 and header[25] in (2, 6)


def _warn(text: str) -> None:
    warnings.warn(text, VoxplainWarning, stacklevel=2)
