"""The viewer data of a 2-D case: PNG at native resolution, map values, vector outlines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.report.run_files import Backdrop
from voxplain.report.viewer.base import Viewer
from voxplain.viz.embed import map_bytes, outline, picture_uri, shrink_factor
from voxplain.viz.overlay import Overlay, flat, is_color, rgb
from voxplain.viz.planes import plane_of
from voxplain.viz.volume import DisplayVolume
from voxplain.viz.words import sizes

Array = NDArray[Any]


class PictureViewer(Viewer):
    """A 2-D case: its picture, maps that the browser colors, outlines as SVG paths."""

    kind = "2d"

    def _plan(self, backdrop: Backdrop, cap: int) -> None:
        self._factor = shrink_factor(backdrop.image, cap)
        if max(self._factor) > 1:
            block = sizes(self._pixels(backdrop.image))
            text = f"The maps in this page are averaged over {block} pixels"
            self._view.notes.append(f"{text}; the files of the run are complete.")

    def _backdrop(self, backdrop: Backdrop) -> dict[str, Any]:
        image = backdrop.image
        rows, columns = flat(image, image.data[0]).shape
        aspect = _pixel_aspect(image)
        letters = [] if image.picture else list(_letters(image))
        return {
            "rows": rows,
            "columns": columns,
            "pixels": self._pixels(image),
            "aspect": aspect,
            "letters": letters,
            "images": self._images(backdrop),
        }

    def _images(self, backdrop: Backdrop) -> list[dict[str, Any]]:
        image = backdrop.image
        if is_color(image):
            uri = picture_uri(rgb(image)[:, :, 0])
            blob = self.blob("image-0", uri)
            return [{"name": "color", "blob": blob}, {"name": "gray", "blob": blob, "gray": True}]
        images = []
        names = image.channels or ("image",)
        for index, (low, high) in enumerate(backdrop.windows):
            gray = (np.nan_to_num(flat(image, image.data[index])) - low) / (high - low)
            blob = self.blob(f"image-{index}", picture_uri(gray))
            images.append({"name": names[index], "blob": blob})
        return images

    def _outline(self, mask: Array, volume: DisplayVolume) -> str:
        return outline(flat(volume, mask))

    def _pixels(self, image: DisplayVolume) -> tuple[int, int]:
        """Rows and columns of the picture that one value of an embedded map stands for."""
        if image.picture:
            return self._factor[0], self._factor[1]
        across, up = plane_of(image.shape).axes
        return self._factor[up], self._factor[across]

    def _reduced(self, volume: DisplayVolume) -> DisplayVolume:
        """The volume itself: blocks of pixels are counted from the upper left corner."""
        return volume

    def _encode(self, values: Array, volume: DisplayVolume, limit: float) -> str:
        small = block_means(flat(volume, values), self._pixels(volume))
        self.data["map_rows"], self.data["map_columns"] = small.shape
        return map_bytes(small, limit)

    def _start(self, overlay: Overlay) -> list[float]:
        if overlay.map.picture:
            return [float(overlay.peak[0]), float(overlay.peak[1])]
        row, column = plane_of(overlay.map.shape).pixel(overlay.peak, overlay.map.shape)
        return [float(row), float(column)]


def block_means(values: Array, block: tuple[int, int]) -> Array:
    """Means over blocks from the upper left corner on; the last ones may be incomplete."""
    sums, counts = values, np.ones(values.shape)
    for axis, size in enumerate(block):
        starts = np.arange(0, values.shape[axis], size)
        sums = np.add.reduceat(sums, starts, axis=axis)
        counts = np.add.reduceat(counts, starts, axis=axis)
    return np.asarray(sums / counts)


def _pixel_aspect(image: DisplayVolume) -> float:
    if image.picture:
        return float(image.spacing[1] / image.spacing[0])
    across, up = plane_of(image.shape).axes
    return float(image.spacing[across] / image.spacing[up])


def _letters(image: DisplayVolume) -> tuple[str, str, str, str]:
    plane = plane_of(image.shape)
    return plane.left, plane.right, plane.top, plane.bottom
