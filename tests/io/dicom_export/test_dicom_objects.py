"""DICOM objects on sources without a place, on grids of layers, and with other letters."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from synthetic_dicom import known_affine, write_series, write_slice

from voxplain.errors import InputError
from voxplain.grid import Grid
from voxplain.io.dicom_export import (
    FramePlace,
    MapContent,
    ObjectIdentity,
    Segment,
    frames_of,
    parametric_map,
    read_source,
    segmentation,
    uid,
)

highdicom = pytest.importorskip("highdicom")

PATIENT = {
    "StudyInstanceUID": "1.2.826.7", "FrameOfReferenceUID": "1.2.826.8", "PatientID": "7",
    "PatientName": "Müller^Jürgen", "SpecificCharacterSet": "ISO_IR 100",
}  # fmt: skip
RADIOGRAPH = {
    **PATIENT, "FrameOfReferenceUID": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1",
    "Modality": "CR", "ImageOrientationPatient": None, "PatientOrientation": ["L", "F"],
    "PixelSpacing": None, "ImagerPixelSpacing": [0.2, 0.3], "SliceThickness": None,
}  # fmt: skip
VALUES = np.random.default_rng(0).integers(0, 99, (6, 4, 5), dtype=np.int16)
CONTENT = MapContent("Saliency", "saliency", "M.", "score", "class 1", True, 1.0, "D.")
IDENTITY = ObjectIdentity(uid("series"), uid("object"), 9, 1, "voxplain saliency")


def read(content: bytes) -> Any:
    return pydicom.dcmread(io.BytesIO(content))


def test_a_map_of_a_layer_lies_on_the_grid_of_its_layer(tmp_path: Path) -> None:
    source = read_source(write_series(tmp_path / "series", VALUES, **PATIENT))
    grid = Grid((5, 4, 6), known_affine()).sub((0.5, 1.0, 1.5), (2, 2, 2), (2, 2, 3))
    values = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    content = parametric_map(
        source, frames_of(values), CONTENT, IDENTITY, place=FramePlace.of_grid(grid)
    )
    volume = highdicom.imread(io.BytesIO(content)).get_volume()
    lps = volume.affine @ np.array([0, 1, 0, 1])
    ras = np.diag([-1, -1, 1, 1]) @ lps
    index = np.linalg.inv(grid.affine) @ ras
    assert np.allclose(index, np.round(index), atol=1e-3)
    assert volume.array[0, 1, 0] == values[tuple(np.round(index[:3]).astype(int))]


def test_a_plain_radiograph_has_a_map_and_a_segmentation(tmp_path: Path) -> None:
    picture = VALUES[0].astype(np.uint16)
    write_slice(tmp_path / "cr.dcm", picture, **RADIOGRAPH)
    source = read_source(tmp_path / "cr.dcm")
    values = picture.astype(np.float32) / 7
    made = read(parametric_map(source, frames_of(values), CONTENT, IDENTITY))
    stored = np.frombuffer(made.FloatPixelData, "<f4").reshape(values.shape)
    assert np.array_equal(stored, values)
    shared = made.SharedFunctionalGroupsSequence[0]
    assert [*shared.PixelMeasuresSequence[0].PixelSpacing] == [0.2, 0.3]
    assert [*shared.PlaneOrientationSequence[0].ImageOrientationPatient] == [1, 0, 0, 0, 0, -1]
    labels = (picture > 50).astype(int) * 4
    segments = [Segment(4, "liver")]
    made = read(segmentation(source, frames_of(labels), segments, "net", IDENTITY))
    assert np.array_equal(made.pixel_array > 0, labels > 0)
    kind = made.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeMeaning, "FrameOfReferenceUID" in made) == ("Liver", False)


def test_letters_of_the_patient_and_of_classes_stay(tmp_path: Path) -> None:
    source = read_source(write_series(tmp_path / "series", VALUES, **PATIENT))
    labels = (VALUES > 50).astype(int)
    made = read(segmentation(source, labels, [Segment(1, "腫瘍")], "net", IDENTITY))
    assert made.PatientName == "Müller^Jürgen"
    assert made.SegmentSequence[0].SegmentLabel == "腫瘍"
    kind = made.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    assert kind.CodeMeaning == "Selected region"


@pytest.mark.parametrize("name", ["StudyInstanceUID", "FrameOfReferenceUID"])
def test_a_series_without_identifiers_is_refused(tmp_path: Path, name: str) -> None:
    series = write_series(tmp_path / "series", VALUES, **{**PATIENT, name: None})
    with pytest.raises(InputError, match=f"has no {name}"):
        read_source(series)


def test_identifiers_are_valid_and_follow_from_their_parts() -> None:
    assert uid("a", 1) == uid("a", 1) != uid("a1")
    assert pydicom.uid.UID(uid("a")).is_valid
