"""The DICOM objects of a case: what each is called, and what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.image import Grid, Image
from voxplain.io.dicom_export import (
    FramePlace,
    MapContent,
    ObjectIdentity,
    Segment,
    SourceSeries,
    frames_of,
    parametric_map,
    secondary_capture,
    segmentation,
    uid,
)
from voxplain.records.atomic import sha256
from voxplain.records.manifest import CaseRecord, Manifest, MapRecord, PredictionRecord
from voxplain.records.names import safe
from voxplain.records.sidecar import Sidecar
from voxplain.report.case_page import case_figures
from voxplain.report.case_view import describe
from voxplain.report.viewer.base import channels
from voxplain.version import __version__
from voxplain.viz.caption import with_caption
from voxplain.viz.facts import heading
from voxplain.viz.figures import MapFigure
from voxplain.viz.volume import DisplayVolume, read_volume

_FIGURES, _PREDICTIONS, _MAPS = 9000, 9100, 9200
"""Where the numbers of the series begin."""
_CAVEAT = "Research use only, not for diagnosis. A map shows what the model used, not what is true."


@dataclass(frozen=True, eq=False)
class PlannedObject:
    """An object that is made when it is needed.

    Attributes:
        file: Its name.
        key: The hash, or text, of all that decides its content, but the patient.
        make: Makes the content of its file.
        names: Of the map, by which it can be chosen; empty for what belongs to no map.
    """

    file: str
    key: str
    make: Callable[[], bytes]
    names: tuple[str, ...] = ()


def planned_objects(
    run: Path,
    manifest: Manifest,
    case: CaseRecord,
    image: Image,
    series: list[SourceSeries],
    problems: list[str],
) -> Iterator[PlannedObject]:
    """The objects of a case: segmentations, then the maps with their figures.

    Args:
        run: The run directory.
        manifest: Of the run.
        case: Of the manifest.
        image: As it was explained.
        series: Of its channels; the first is the source.
        problems: Gets what could not be read.
    """
    at = _ExportedCase(
        run, case, image, series[0], [s for s in series[1:] if s.study == series[0].study]
    )
    models = [model.name for model in manifest.models]
    for number, model in enumerate(models):
        made = [p for p in manifest.predictions if (p.case, p.model) == (case.id, model)]
        if prediction := next((each for each in made if each.image), None):
            yield from at.segmentation(prediction, number)
    places = {record.file: number for number, record in enumerate(manifest.maps)}
    view = describe(case, manifest)
    for record, sidecar, figure, text in case_figures(run, manifest, view):
        yield from at.maps(record, sidecar, places[record.file])
        yield at.figure(record, figure, text, models.index(record.model), places[record.file])
    problems += [f"{problem.what} could not be read: {problem.why}" for problem in view.problems]


@dataclass(frozen=True, eq=False)
class _ExportedCase:
    run: Path
    record: CaseRecord
    image: Image
    source: SourceSeries
    further: list[SourceSeries]

    def _identity(
        self,
        group: tuple[object, ...],
        parts: tuple[object, ...],
        numbers: tuple[int, int],
        description: str,
    ) -> ObjectIdentity:
        """The identity of an object, by the source series, the case, and what it shows.

        Args:
            group: What the objects of its series have in common.
            parts: What tells it from these.
            numbers: Of the series, and in it.
            description: Of the series.
        """
        series = (self.source.study, self.source.series, self.record.id, *group)
        return ObjectIdentity(uid(*series), uid(*series, "object", *parts), *numbers, description)

    def segmentation(self, prediction: PredictionRecord, number: int) -> Iterator[PlannedObject]:
        """The predicted labels of a network; none where only background is predicted."""
        file = self.run / str(prediction.image)
        labels = read_volume(file, self.image.rank, self.image.grid.unit).data[0].astype(np.int64)
        names = list(prediction.volumes)
        segments = [
            Segment(label, names[label] if label < len(names) else f"class {label}")
            for label in np.unique(labels).tolist()
            if label > 0
        ]
        if not segments:
            return
        identity = self._identity(
            ("prediction", prediction.model),
            (sha256(file),),
            (_PREDICTIONS + number, 1),
            f"voxplain prediction of {prediction.model}",
        )
        yield PlannedObject(
            f"{safe(prediction.model)}_{safe(self.record.id)}_seg.dcm",
            repr((identity, segments, __version__)),
            partial(
                segmentation, self.source, self._frames(labels), segments, prediction.model,
                identity, further=self.further,
            ),
        )  # fmt: skip

    def maps(self, record: MapRecord, sidecar: Sidecar, number: int) -> Iterator[PlannedObject]:
        """The sum over the channels of a map, and each channel of the image."""
        volume, place = self._placed(record, sidecar)
        for index, (channel, values) in enumerate(channels(volume, sidecar), start=1):
            name = heading(record, sidecar) + (f", {channel}" if index > 1 else "")
            identity = self._identity(
                ("map", record.model, record.target, record.label, record.layer),
                (record.key, channel),
                (_MAPS + number, index),
                f"voxplain {heading(record, sidecar)}, {record.target}",
            )
            part = f"_{safe(channel)}" if index > 1 else ""
            yield PlannedObject(
                f"{_stem(record)}{part}_pm.dcm",
                repr((identity, __version__)),
                partial(
                    parametric_map, self.source, self._frames(values).astype(np.float32),
                    _content(name, sidecar, values), identity, place=place, further=self.further,
                ),
                (record.label, record.method),
            )  # fmt: skip

    def figure(
        self, record: MapRecord, figure: MapFigure, text: str, model: int, number: int
    ) -> PlannedObject:
        """The figure of the report with its caption below it."""
        identity = self._identity(
            ("figures", record.model),
            (record.target, record.label, record.layer, record.key),
            (_FIGURES + model, number + 1),
            f"voxplain figures of {record.model}",
        )

        def make() -> bytes:
            picture = np.asarray(with_caption(figure.draw(), [text, _CAVEAT]))
            return secondary_capture(self.source, picture, text, identity)

        key = repr((identity, figure.key, text, __version__))
        return PlannedObject(f"{_stem(record)}_sc.dcm", key, make, (record.label, record.method))

    def _placed(
        self, record: MapRecord, sidecar: Sidecar
    ) -> tuple[DisplayVolume, FramePlace | None]:
        """The values of a map, and their place where it is another than that of the image."""
        grid, own = self.image.grid, sidecar.grid
        rank = min(len(own.shape), 3)
        affine = np.array(own.affine)
        volume = read_volume(self.run / record.file, rank, own.unit, sidecar.channels, affine)
        same = tuple(own.shape[:rank]) == grid.shape and np.allclose(affine, grid.affine, atol=1e-4)
        if same:
            return volume, None
        if self.source.place.positions is None:
            return volume.onto(DisplayVolume.of(self.image.data, grid)), None
        shape = volume.shape if rank == 3 else volume.shape[:2]
        return volume, FramePlace.of_grid(Grid(shape, affine, code=grid.code))

    def _frames(self, values: NDArray[Any]) -> NDArray[Any]:
        return frames_of(values[:, :, 0] if self.image.rank == 2 else values)


def _content(name: str, sidecar: Sidecar, values: NDArray[Any]) -> MapContent:
    limit = float(np.percentile(np.abs(values), 99.5)) or float(np.abs(values).max())
    return MapContent(
        name=name,
        method=sidecar.method,
        meaning=sidecar.meaning,
        units=sidecar.units,
        target=sidecar.target.in_words,
        signed=sidecar.sign == "signed",
        limit=limit,
        derivation=f"Made by voxplain {__version__} from the network {sidecar.model.name}.",
    )


def _stem(record: MapRecord) -> str:
    stem = Path(record.file).name.removesuffix(".nii.gz")
    return f"{safe(record.model)}_{stem}"
