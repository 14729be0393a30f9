"""The viewer data of a 3-D case: small NIfTI files for NiiVue."""

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
    """A 3-D case: cropped volumes, averaged over voxels where the page would become too large."""

    kind = "3d"

    def _plan(self, backdrop: Backdrop, cap: int) -> None:
        self._factor = shrink_factor(backdrop.image, cap)
        text = "The volumes in this page are 8-bit copies, cropped to what is shown"
        if max(self._factor) > 1:
            text += f" and averaged over {sizes(self._factor)} voxels"
        text += "; the files of the run are complete. Nothing was done to hide a face."
        self._view.notes.append(text)

    def _backdrop(self, backdrop: Backdrop) -> dict[str, Any]:
        image = self._reduced(backdrop.image)
        names = image.channels or ("image",)
        images = []
        for index, values in enumerate(image.data):
            blob = self.blob(f"image-{index}", image_nifti(values, image.affine))
            window = list(backdrop.windows[index])
            images.append({"name": names[index], "blob": blob, "window": window})
        return {"images": images}

    def _outline(self, mask: Array, volume: DisplayVolume) -> str:
        labels = DisplayVolume(mask[None].astype(np.uint8), volume.affine)
        labels = labels.shrink(self._factor, labels=True)
        return labels_nifti(labels.data[0], labels.affine)

    def _reduced(self, volume: DisplayVolume) -> DisplayVolume:
        return volume.shrink(self._factor)

    def _encode(self, values: Array, volume: DisplayVolume, limit: float) -> str:
        return map_nifti(values, volume.affine, limit)

    def _start(self, overlay: Overlay) -> list[float]:
        return [float(value) for value in overlay.map.world(overlay.peak)]
