"""Reading of PNG, JPEG, TIFF and BMP as ``(C, rows, columns)``, without their metadata."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from voxplain.errors import InputError, VoxplainWarning
from voxplain.image import Grid
from voxplain.io.bounds import require_bounded
from voxplain.io.raw import RawImage
from voxplain.io.tiff import is_unusual_tiff, read_tiff_pages, require_finite
from voxplain.objects import COLORS, decoded

_TIFF = (".tif", ".tiff")


def read_picture(
    path: Path, rank: int | None, spacing: tuple[float, ...] | float | None
) -> RawImage:
    """A picture in its stored orientation; gray is one channel, 16 bits are kept.

    Print resolution (DPI) is no size in the patient and is ignored. A TIFF of several pages is a
    volume ``(rows, columns, pages)`` if ``rank`` is 3; its channel axis, where it states one, is
    that of the image.

    Raises:
        InputError: If the file is no picture, is damaged, or has several pages and ``rank`` is not
            3.
    """
    data = _of_rank(path, _pages(path), rank)
    colors = COLORS if len(data) == 3 else ()
    return RawImage(data, Grid.picture(data.shape[1:], spacing), {"format": "picture"}, colors)


def read_indices(path: Path, rank: int, ignore: int | None = None) -> NDArray[Any]:
    """The labels of a mask picture: palette indices or gray values, ``(rows, columns[, pages])``.

    In a gray picture of black and white alone these become 0 and 1, unless white is to be ignored.

    Raises:
        InputError: If the picture has colors that are no palette, or gray values that a lossy
            compression made.
    """
    array = _of_rank(path, _pages(path, palette=False), rank)
    if (array != array[:1]).any():
        raise InputError(f"{path.name} is colored; a mask needs one gray value per label")
    labels: NDArray[Any] = array[0]
    kind, mode = _kind_and_mode(path)
    white = 255 if labels.dtype == np.uint8 else 65535  # Pillow may widen 16 bits to 32.
    # An index of a palette is a label, whatever its color.
    if mode != "P" and ignore != white and np.isin(labels, (0, white)).all():
        return np.asarray(labels == white, dtype=np.uint8)
    if kind in ("JPEG", "MPO"):
        raise InputError(
            f"{path.name} is a JPEG, whose lossy compression makes labels of its own; save the "
            "mask as PNG"
        )
    return labels


def _kind_and_mode(path: Path) -> tuple[str | None, str]:
    """The format and the mode of a picture; none for a TIFF that Pillow cannot read."""
    try:
        with Pillow.open(path) as picture:
            return picture.format, picture.mode
    except UnidentifiedImageError:
        return None, ""


def _of_rank(path: Path, pages: list[NDArray[Any]], rank: int | None) -> NDArray[Any]:
    if len(pages) == 1 and rank != 3:
        return pages[0]
    if rank != 3:
        raise InputError(f"{path.name} has {len(pages)} pages; say rank 3 if they are a volume")
    if len({page.shape for page in pages}) != 1:
        raise InputError(f"{path.name} has pages of different sizes, which are no volume")
    return np.stack(pages, axis=-1)


def _pages(path: Path, palette: bool = True) -> list[NDArray[Any]]:
    """The pages, each ``(C, rows, columns)``."""
    is_tiff = path.suffix.lower() in _TIFF
    if is_tiff:
        require_finite(path)
    if is_tiff and is_unusual_tiff(path):
        return read_tiff_pages(path)
    try:
        with Pillow.open(path) as picture:
            pages = getattr(picture, "n_frames", 1)
            require_bounded(path, (pages, picture.height, picture.width, len(picture.getbands())))
            if picture.format == "PNG" and _is_deep_color(path):
                _warn("the color PNG has 16 bits per channel; 8 of them are read")
            return [_page(picture, index, palette) for index in range(pages)]
    except UnidentifiedImageError:
        if is_tiff:
            return read_tiff_pages(path)
        raise InputError(
            f"{path.name} is not a picture that can be read (PNG, JPEG, TIFF, BMP)"
        ) from None


def _page(picture: Pillow.Image, index: int, palette: bool) -> NDArray[Any]:
    picture.seek(index)
    return decoded(picture, palette)


def _is_deep_color(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.read(26)
    return len(header) == 26 and header[24] == 16 and header[25] in (2, 6)


def _warn(text: str) -> None:
    warnings.warn(text, VoxplainWarning, stacklevel=2)
