"""Encodes a volume case for NiiVue: small NIfTI files inside the page."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.report.run_files import Backdrop
from voxplain.report.viewer.base import Viewer
from voxplain.viz.embed import image_nifti, labels_nifti, map_nifti, shrink_factor
from voxplain.viz.overlay import Overlay
from voxplain.viz.volume import DisplayVolume
from voxplain.viz.words import sizes

Array = NDArray[Any]


class VolumeViewer(Viewer):
    """Volumes cropped to what is shown, averaged as far as the page's size demands."""

    kind = "3d"

    def _plan(self, shown: Backdrop, cap: int) -> None:
        self._factor = shrink_factor(shown.image, cap)
        text = "The volumes in this page are 8-bit copies, cropped to what is shown"
        if max(self._factor) > 1:
            text += f" and averaged over {sizes(self._factor)} voxels"
        text += "; the files of the run are complete. Nothing was done to hide a face."
        self._view.notes.append(text)

    def _backdrop(self, shown: Backdrop) -> dict[str, Any]:
        image = self._reduced(shown.image)
        names = image.channels or ("image",)
        images = []
        for index, values in enumerate(image.data):
            blob = self.blob(f"image-{index}", image_nifti(values, image.affine))
            window = list(shown.windows[index])
            images.append({"name": names[index], "blob": blob, "window": window})
        return {"images": images}

    def _outline(self, mask: Array, map: DisplayVolume) -> str:
        volume = DisplayVolume(mask[None].astype(np.uint8), map.affine).shrink(
            self._factor, labels=True
        )
        return labels_nifti(volume.data[0], volume.affine)

    def _reduced(self, map: DisplayVolume) -> DisplayVolume:
        return map.shrink(self._factor)

    def _encode(self, values: Array, map: DisplayVolume, limit: float) -> str:
        return map_nifti(values, map.affine, limit)

    def _start(self, scene: Overlay) -> list[float]:
        return [float(value) for value in scene.map.world(scene.peak)]
