"""Reads the volumes of a case from a run directory, on the voxels of its image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.records.manifest import CaseRecord, MapRecord
from voxplain.records.sidecar import Sidecar
from voxplain.report.case_view import CaseView
from voxplain.report.problems import UNREADABLE, Problem, reason
from voxplain.viz.scale import bounding_box, foreground, gray_window, robust_limit
from voxplain.viz.volume import DisplayVolume, read_volume

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Backdrop:
    """The image and masks that the maps of a case are drawn on, on canonical axes.

    Attributes:
        image: The source channels.
        windows: Black and white point per channel, in source units.
        predictions: Label array ``(X, Y, Z)`` by model name.
        reference: Label array, where the study names one.
    """

    image: DisplayVolume
    windows: tuple[tuple[float, float], ...]
    predictions: dict[str, Array]
    reference: Array | None

    def crop(self, box: tuple[slice, ...]) -> Backdrop:
        """The backdrop inside a box."""
        masks = {name: labels[box] for name, labels in self.predictions.items()}
        reference = None if self.reference is None else self.reference[box]
        return Backdrop(self.image.crop(box), self.windows, masks, reference)


def read_backdrop(run: Path, case: CaseRecord, view: CaseView) -> Backdrop:
    """Image and masks of a case; a mask that cannot be read becomes a problem of the view."""
    image = read_volume(run / case.image, len(case.shape), case.unit, case.channels).canonical()
    windows = tuple(image.window or gray_window(channel) for channel in image.data)
    backdrop = Backdrop(image, windows, {}, None)
    for prediction in view.predictions:
        if prediction.image:
            what = f"the prediction of {prediction.model}"
            labels = _labels(run / prediction.image, case, backdrop, view, what)
            if labels is not None:
                backdrop.predictions[prediction.model] = labels
    if case.reference:
        labels = _labels(run / case.reference, case, backdrop, view, "the reference")
        if labels is not None and case.reference_ignore is not None:
            labels = np.where(labels == case.reference_ignore, 0, labels)
        backdrop = replace(backdrop, reference=labels)
    return backdrop


def _labels(
    path: Path, case: CaseRecord, backdrop: Backdrop, view: CaseView, what: str
) -> Array | None:
    try:
        labels = read_volume(path, len(case.shape), case.unit)
        array: Array = labels.canonical().onto(backdrop.image, labels=True).data[0]
        return array
    except UNREADABLE as error:
        view.problems.append(Problem(what, reason(error)))
        return None


def read_map(run: Path, record: MapRecord, sidecar: Sidecar, backdrop: Backdrop) -> DisplayVolume:
    """A map on the voxels of the image.

    A layer map on a grid of its own is interpolated through both affines.
    """
    rank = min(len(sidecar.grid.shape), 3)
    affine = sidecar.grid.affine
    unit = sidecar.grid.unit
    volume = read_volume(run / record.file, rank, unit, sidecar.channels, affine)
    volume = replace(volume, picture=backdrop.image.picture).canonical()
    return volume.onto(backdrop.image)


def foreground_box(backdrop: Backdrop) -> tuple[slice, ...]:
    """The box around foreground and predictions; the whole of a 2-D image."""
    image = backdrop.image
    if image.planar:
        return tuple(slice(0, size) for size in image.shape)
    masks = [foreground(channel) for channel in image.data]
    masks += [labels > 0 for labels in backdrop.predictions.values()]
    return bounding_box(*masks)


def widened(box: tuple[slice, ...], attribution_map: DisplayVolume) -> tuple[slice, ...]:
    """The box with the strong values of a map, so that evidence outside of a patient is shown."""
    total = np.nan_to_num(attribution_map.channel_sum())
    strong = np.abs(total) > 0.5 * robust_limit(total)
    if attribution_map.planar or not strong.any():
        return box
    pairs = zip(box, bounding_box(strong, margin=1), strict=True)
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in pairs)
