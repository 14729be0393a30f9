"""Makes the figures and viewer data of a case from the files of its run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.records.manifest import CaseRecord, Manifest, MapRecord
from voxplain.records.names import safe
from voxplain.records.sidecar import Sidecar
from voxplain.report.case_view import WITHOUT_SIDES, CaseView, MapView, describe
from voxplain.report.kept_figures import KeptFigures
from voxplain.report.problems import UNREADABLE, Problem, reason
from voxplain.report.run_files import Backdrop, foreground_box, read_backdrop, read_map, widened
from voxplain.report.viewer.base import Viewer, channels_of
from voxplain.report.viewer.picture import PictureViewer
from voxplain.report.viewer.volume import VolumeViewer
from voxplain.viz.facts import alternative_text, heading, map_facts
from voxplain.viz.figures import MapFigure, map_figure
from voxplain.viz.overlay import Overlay
from voxplain.viz.volume import DisplayVolume
from voxplain.viz.words import sentence

Array = NDArray[Any]


def build_case(
    run: Path,
    manifest: Manifest,
    case: CaseRecord,
    figures: KeptFigures,
    *,
    share: bool,
    budget: int,
) -> CaseView:
    """One case with its maps as the page shows them; draws their figures where they changed.

    Args:
        run: The run directory.
        manifest: Of the run.
        case: Of the manifest.
        figures: Of the run.
        share: Leave all images out.
        budget: Bytes of all embedded copies together.

    Returns:
        The case; what could not be read is among its problems and left out.
    """
    view = describe(case, manifest)
    records = list(_sidecars(run, manifest, view))
    backdrop = None if share else _backdrop(run, case, view)
    if backdrop is None:
        view.maps = [_without_figure(*record) for record in records]
        return view
    if backdrop.image.picture:
        view.facts = [
            (name, WITHOUT_SIDES if name == "Orientation" else v) for name, v in view.facts
        ]
    box = foreground_box(backdrop)
    for _, record, sidecar in records:
        volume = _try_map(run, record, sidecar, backdrop, view)
        box = box if volume is None else widened(box, volume)
    cropped = backdrop.crop(box)
    viewer = _viewer(view, cropped, budget, [sidecar for _, _, sidecar in records])
    for index, record, sidecar in records:
        # Read twice, as all maps of a case together may not fit into memory.
        volume = _try_map(run, record, sidecar, backdrop, view)
        if volume is not None:
            overlay = _overlay(record, sidecar, cropped, volume.crop(box))
            view.maps.append(_with_figure(figures, record, sidecar, index, overlay))
            viewer.add(view.maps[-1], overlay)
    view.viewer = viewer.data if view.maps else None
    return view


def case_figures(
    run: Path, manifest: Manifest, view: CaseView
) -> Iterator[tuple[MapRecord, Sidecar, MapFigure, str]]:
    """The figures of the maps of a case, not yet drawn, with what they show in words.

    Args:
        run: The run directory.
        manifest: Of the run.
        view: The case, which gets what could not be read as its problems.
    """
    backdrop = _backdrop(run, view.record, view)
    if backdrop is None:
        return
    records = list(_sidecars(run, manifest, view))
    box = foreground_box(backdrop)
    for _, record, sidecar in records:
        volume = _try_map(run, record, sidecar, backdrop, view)
        box = box if volume is None else widened(box, volume)
    cropped = backdrop.crop(box)
    for _, record, sidecar in records:
        volume = _try_map(run, record, sidecar, backdrop, view)
        if volume is not None:
            overlay = _overlay(record, sidecar, cropped, volume.crop(box))
            text = alternative_text(heading(record, sidecar), overlay.map, sidecar)
            yield record, sidecar, map_figure(overlay), text


def _sidecars(
    run: Path, manifest: Manifest, view: CaseView
) -> Iterator[tuple[int, MapRecord, Sidecar]]:
    """Number, record and sidecar of the maps of the case."""
    for index, record in enumerate(manifest.maps):
        if record.case != view.record.id:
            continue
        try:
            text = (run / record.sidecar).read_text(encoding="utf-8")
            yield index, record, Sidecar.model_validate_json(text)
        except UNREADABLE as error:
            view.problems.append(Problem(f"the map {record.label}", reason(error)))


def _backdrop(run: Path, case: CaseRecord, view: CaseView) -> Backdrop | None:
    try:
        return read_backdrop(run, case, view)
    except UNREADABLE as error:
        view.problems.append(Problem("the image", reason(error)))
        return None


def _try_map(
    run: Path, record: MapRecord, sidecar: Sidecar, backdrop: Backdrop, view: CaseView
) -> DisplayVolume | None:
    try:
        return read_map(run, record, sidecar, backdrop)
    except UNREADABLE as error:
        problem = Problem(f"the map {record.label}", reason(error))
        if problem not in view.problems:
            view.problems.append(problem)
        return None


def _viewer(view: CaseView, backdrop: Backdrop, budget: int, sidecars: list[Sidecar]) -> Viewer:
    count = len(backdrop.image.data) + sum(len(channels_of(sidecar)) for sidecar in sidecars)
    # A voxel takes at most a byte, and a third more as text.
    cap = int(0.7 * budget / max(count, 1))
    return (PictureViewer if backdrop.image.planar else VolumeViewer)(view, backdrop, cap)


def _without_figure(index: int, record: MapRecord, sidecar: Sidecar) -> MapView:
    name = heading(record, sidecar)
    return MapView(f"map{index}", record, sidecar, name, map_facts(sidecar, None))


def _overlay(
    record: MapRecord, sidecar: Sidecar, backdrop: Backdrop, volume: DisplayVolume
) -> Overlay:
    prediction, reference = backdrop.predictions.get(record.model), backdrop.reference
    label = sidecar.target.parameters.get("label")
    title = f"{heading(record, sidecar)}  ·  case {record.case}  ·  model {record.model}"
    return Overlay(
        map=volume,
        image=backdrop.image,
        prediction=None if prediction is None else explained_mask(prediction, label),
        reference=None if reference is None else explained_mask(reference, label),
        title=title,
        subtitle=sentence(sidecar.target.in_words),
        units=sidecar.units,
        sign=sidecar.sign,
        windows=backdrop.windows,
    )


def explained_mask(labels: Array, label: Any) -> NDArray[np.bool_]:
    """The mask of the explained label; of all labels where that one does not occur."""
    if isinstance(label, int) and label > 0 and (labels == label).any():
        return np.asarray(labels == label)
    return np.asarray(labels > 0)


def _with_figure(
    figures: KeptFigures, record: MapRecord, sidecar: Sidecar, index: int, overlay: Overlay
) -> MapView:
    name = heading(record, sidecar)
    stem = Path(record.file).name.removesuffix(".gz").removesuffix(".nii")
    file = f"figures/{safe(record.model)}_{stem}.png"
    figure = map_figure(overlay)
    uri = figures.uri(file, figure.key, figure.draw)
    facts = map_facts(sidecar, overlay.map)
    alt = alternative_text(name, overlay.map, sidecar)
    return MapView(f"map{index}", record, sidecar, name, facts, alt, uri, file)
