"""Turns the files of one case into figures and viewer data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.records.manifest import CaseRecord, Manifest, MapRecord
from voxplain.records.names import safe
from voxplain.records.sidecar import Sidecar
from voxplain.report.case_view import CaseView, MapView, describe
from voxplain.report.problems import UNREADABLE, Problem, reason
from voxplain.report.run_files import Backdrop, interesting, read_backdrop, read_map, widen
from voxplain.report.viewer.base import Viewer, channels_of
from voxplain.report.viewer.picture import PictureViewer
from voxplain.report.viewer.volume import VolumeViewer
from voxplain.viz.embed import figure_uri
from voxplain.viz.facts import alternative_text, heading, map_facts
from voxplain.viz.figures import map_figure, png
from voxplain.viz.overlay import Overlay
from voxplain.viz.volume import DisplayVolume
from voxplain.viz.words import sentence

Array = NDArray[Any]


def build_case(
    run: Path, manifest: Manifest, case: CaseRecord, *, share: bool, budget: int
) -> CaseView:
    """One case, ready for the page; its figures are written to ``figures/``.

    Args:
        run: The run directory.
        manifest: Of the run.
        case: Which case.
        share: Leave all images out.
        budget: Bytes that the embedded copies may take together.

    Returns:
        The view; what could not be read is among its problems, the rest goes on.
    """
    view = describe(case, manifest)
    records = list(_sidecars(run, manifest, view))
    backdrop = None if share else _backdrop(run, case, view)
    if backdrop is None:
        view.maps = [_wordy(*part) for part in records]
        return view
    box = interesting(backdrop)
    for _, record, sidecar in records:
        map = _try_map(run, record, sidecar, backdrop, view)
        box = box if map is None else widen(box, map)
    shown = backdrop.crop(box)
    viewer = _viewer(view, shown, budget, [sidecar for _, _, sidecar in records])
    for index, record, sidecar in records:
        map = _try_map(run, record, sidecar, backdrop, view)
        if map is None:
            continue
        map = map.crop(box)
        scene = _scene(record, sidecar, shown, map)
        view.maps.append(_pictured(run, record, sidecar, index, scene))
        viewer.add(view.maps[-1], scene)
    view.viewer = viewer.data if view.maps else None
    return view


def _sidecars(
    run: Path, manifest: Manifest, view: CaseView
) -> Iterator[tuple[int, MapRecord, Sidecar]]:
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


def _viewer(view: CaseView, shown: Backdrop, budget: int, sidecars: list[Sidecar]) -> Viewer:
    count = len(shown.image.data) + sum(len(channels_of(sidecar)) for sidecar in sidecars)
    # A voxel takes at most a byte, and a third more as text.
    cap = int(0.7 * budget / max(count, 1))
    return (PictureViewer if shown.image.planar else VolumeViewer)(view, shown, cap)


def _wordy(index: int, record: MapRecord, sidecar: Sidecar) -> MapView:
    name = heading(record, sidecar)
    return MapView(f"map{index}", record, sidecar, name, map_facts(sidecar, None))


def _scene(record: MapRecord, sidecar: Sidecar, shown: Backdrop, map: DisplayVolume) -> Overlay:
    labels = shown.predictions.get(record.model)
    explained = sidecar.target.parameters.get("label")
    parts = [heading(record, sidecar), f"case {record.case}", f"model {record.model}"]
    return Overlay(
        map=map,
        image=shown.image,
        prediction=None if labels is None else explained_mask(labels, explained),
        reference=None if shown.reference is None else explained_mask(shown.reference, explained),
        title="  ·  ".join(parts),
        subtitle=sentence(sidecar.target.in_words),
        units=sidecar.units,
        sign=sidecar.sign,
        windows=shown.windows,
    )


def explained_mask(labels: Array, explained: Any) -> NDArray[np.bool_]:
    """Where the explained class is; every label where that class does not occur."""
    if isinstance(explained, int) and explained > 0 and (labels == explained).any():
        return np.asarray(labels == explained)
    return np.asarray(labels > 0)


def _pictured(
    run: Path, record: MapRecord, sidecar: Sidecar, index: int, scene: Overlay
) -> MapView:
    name = heading(record, sidecar)
    picture = png(map_figure(scene))
    stem = Path(record.file).name.removesuffix(".gz").removesuffix(".nii")
    file = f"figures/{safe(record.model)}_{stem}.png"
    (run / "figures").mkdir(exist_ok=True)
    (run / file).write_bytes(picture)
    facts = map_facts(sidecar, scene.map)
    alt = alternative_text(name, scene.map, sidecar)
    figure = figure_uri(picture)
    return MapView(f"map{index}", record, sidecar, name, facts, alt, figure, file)
