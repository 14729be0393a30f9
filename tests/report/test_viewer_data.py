"""What the viewers of a page embed: outlines, labels and blocks of pixels."""

from __future__ import annotations

import base64
import gzip
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np

from voxplain.report.viewer.base import Viewer, channels_of
from voxplain.report.viewer.picture import PictureViewer
from voxplain.report.viewer.volume import VolumeViewer
from voxplain.viz.embed import labels_nifti, outline
from voxplain.viz.overlay import Overlay
from voxplain.viz.volume import DisplayVolume

SHAPE = (8, 10, 6)


def opened(kind: type[Viewer], volume: DisplayVolume, cap: int) -> tuple[Any, Any]:
    """A viewer of one image, and the view that takes its blobs."""
    view: Any = SimpleNamespace(slug="case", blobs={}, notes=[])
    backdrop: Any = SimpleNamespace(image=volume, windows=[(0.0, 1.0)] * len(volume.data))
    return kind(view, backdrop, cap), view


def decoded(text: str) -> np.ndarray:
    """The voxels of an embedded NIfTI."""
    content = gzip.decompress(base64.b64decode(text))
    return np.asarray(nibabel.Nifti1Image.from_bytes(content).dataobj)


def labels(viewer: Any, view: Any, overlay: Overlay) -> dict[str, np.ndarray]:
    """The embedded outlines by their kind."""
    numbers = viewer._lines(overlay)
    entries = [viewer.data["outlines"][number] for number in numbers]
    return {entry["kind"]: decoded(view.blobs[entry["blob"]]) for entry in entries}


def test_prediction_and_reference_keep_their_names_and_labels_their_middle_voxel() -> None:
    draws = np.random.default_rng(0)
    volume = DisplayVolume(draws.random((1, *SHAPE), dtype=np.float32), np.diag([2.0, 2, 2, 1]))
    prediction, reference = (draws.random(SHAPE) > share for share in (0.3, 0.6))
    overlay = Overlay(volume, volume, prediction=prediction, reference=reference)
    whole, view = opened(VolumeViewer, volume, 10_000)
    found = labels(whole, view, overlay)
    np.testing.assert_array_equal(found["prediction"], prediction)
    np.testing.assert_array_equal(found["reference"], reference)
    small, view = opened(VolumeViewer, volume, SHAPE[0] * SHAPE[1] * SHAPE[2] // 8)
    found = labels(small, view, overlay)
    np.testing.assert_array_equal(found["prediction"], prediction[1::2, 1::2, 1::2])
    np.testing.assert_array_equal(found["reference"], reference[1::2, 1::2, 1::2])


def test_blocks_of_a_slice_are_larger_along_its_finer_axis() -> None:
    """Here along the columns: the first axis of an axial slice runs across."""
    shape, affine = (40, 30, 1), np.diag([0.5, 1.0, 1, 1])
    values = np.random.default_rng(0).random(shape, dtype=np.float32)
    volume = DisplayVolume(values[None], affine)
    viewer, _ = opened(PictureViewer, volume, 600)
    assert (viewer.data["rows"], viewer.data["columns"]) == (30, 40)
    assert viewer.data["pixels"] == (1, 2)
    assert viewer.data["aspect"] == 0.5
    viewer._encode(values, volume, 1.0)
    assert (viewer.data["map_rows"], viewer.data["map_columns"]) == (30, 20)
    mask = values > 0.5
    assert viewer._outline(mask, volume) == outline(mask[::-1, ::-1, 0].T)


def test_labels_beyond_a_byte_do_not_become_others() -> None:
    found = decoded(labels_nifti(np.array([[[0, 1, 255, 256, 300]]]), np.eye(4)))
    np.testing.assert_array_equal(found, [[[0, 1, 255, 255, 255]]])


def test_up_to_eight_input_channels_are_offered_beside_their_sum() -> None:
    def offered(count: int, layer: str | None = None) -> int:
        names = tuple(f"m{number}" for number in range(count))
        sidecar: Any = SimpleNamespace(channels=names, layer=layer)
        return len(channels_of(sidecar))

    assert [offered(count) for count in (1, 2, 8, 9)] == [1, 3, 9, 1]
    assert offered(4, "enc1") == 1
