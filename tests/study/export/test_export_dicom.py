"""``voxplain export --dicom``: the objects lie where the maps lie, and identity stays in them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from synthetic_dicom import write_enhanced, write_series
from tiny import TinyStudy, blob
from typer.testing import CliRunner

from voxplain.cli import app
from voxplain.study import Study, run_study

highdicom = pytest.importorskip("highdicom")

PATIENT = {
    "PatientName": "MARKERDOE^Jürgen", "PatientID": "MARKERDOE7", "PatientBirthDate": "19500101",
    "PatientSex": "M", "StudyID": "MARKERDOE", "AccessionNumber": "MARKERDOE", "StudyTime": "1010",
    "StudyInstanceUID": "1.2.826.7", "FrameOfReferenceUID": "1.2.826.8", "StudyDate": "20200101",
    "SpecificCharacterSet": "ISO_IR 100", "SeriesNumber": 3, "StudyDescription": "MARKERDOE",
}  # fmt: skip
VOXELS = (blob((6, 6, 5)).T * 100 + 1000).astype(np.int16)  # with the rescale a value from 1000 on


def export(tiny: TinyStudy, *flags: str) -> Any:
    return CliRunner().invoke(app, ["export", str(tiny.run), "--dicom", *map(str, flags)])


def enhanced(folder: Path, values: np.ndarray, **attributes: Any) -> Path:
    folder.mkdir()
    data = pydicom.dcmread(write_enhanced(folder / "enhanced.dcm", values))
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    for name, value in attributes.items():
        setattr(data, name, value)
    data.save_as(folder / "enhanced.dcm")
    return folder


def explained(tiny: TinyStudy, image: Path, **changes: Any) -> TinyStudy:
    tiny.write(
        cases=[{"id": "a", "image": str(image), "rank": 3}],
        models=[
            {
                **tiny.config["models"][0],
                "preprocess": [{"kind": "normalize", "mode": "zscore"}],
            }
        ],
        **changes,
    )
    run_study(Study.load(tiny.file))
    return tiny


@pytest.fixture
def run(tiny: TinyStudy) -> TinyStudy:
    """A run on an oblique, anisotropic series whose files are in the reverse of their order."""
    series = write_series(tiny.folder / "MARKERDOE", VOXELS, **PATIENT)
    return explained(tiny, series, methods=["saliency"])


def files(tiny: TinyStudy, end: str) -> list[Path]:
    return sorted((tiny.run / "dicom" / "a").glob(f"*_{end}.dcm"))


def nifti_at(path: Path, lps: np.ndarray) -> np.ndarray:
    """The values of a NIfTI file at positions ``(..., 3)``."""
    image: Any = nibabel.load(path)
    ras = lps * [-1, -1, 1]
    index = nibabel.affines.apply_affine(np.linalg.inv(image.affine), ras)
    assert np.abs(index - np.round(index)).max() < 0.01
    return np.asarray(image.dataobj)[tuple(np.moveaxis(np.round(index).astype(int), -1, 0))]


def positions_of(data: Any) -> np.ndarray:
    """The position of each voxel of an object with several frames, from its functional groups."""
    shared = data.SharedFunctionalGroupsSequence[0]
    axes = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    rows, columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    row, column = np.indices((data.Rows, data.Columns))
    within = row[..., None] * rows * axes[1] + column[..., None] * columns * axes[0]
    frames = data.PerFrameFunctionalGroupsSequence
    starts = [f.PlanePositionSequence[0].ImagePositionPatient for f in frames]
    return np.stack([within + np.array(start, float) for start in starts])


@pytest.mark.parametrize("kind", ["series", "enhanced"])
def test_objects_lie_where_the_maps_lie(tiny: TinyStudy, kind: str) -> None:
    write = write_series if kind == "series" else enhanced
    folder = write(tiny.folder / "source", VOXELS, **PATIENT)
    explained(tiny, folder, methods=["saliency"])
    result = export(tiny, "--study", tiny.file)
    assert result.exit_code == 0, result.output

    data = pydicom.dcmread(files(tiny, "pm")[0])
    values = np.frombuffer(data.FloatPixelData, "<f4").reshape(-1, data.Rows, data.Columns)
    (nifti,) = tiny.run.glob("maps/a/net/*saliency*.nii.gz")
    assert values.any()
    assert np.array_equal(values, nifti_at(nifti, positions_of(data)))
    sources = [pydicom.dcmread(file) for file in folder.iterdir()]
    frames = [f for s in sources for f in s.get("PerFrameFunctionalGroupsSequence", [s])]
    stated = {tuple(f.get("PlanePositionSequence", [f])[0].ImagePositionPatient) for f in frames}
    groups = data.PerFrameFunctionalGroupsSequence
    assert {tuple(g.PlanePositionSequence[0].ImagePositionPatient) for g in groups} == stated
    mapping = data.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeMeaning == "score per unit of intensity"

    labels = highdicom.seg.segread(files(tiny, "seg")[0])
    image = highdicom.imread(files(tiny, "pm")[0]).get_volume()
    volume = labels.get_volume(combine_segments=True).match_geometry(image)
    (predicted,) = tiny.run.glob("images/*_pred.nii.gz")
    assert volume.array.sum() == (np.asarray(nibabel.load(predicted).dataobj) == 1).sum() > 0
    frames = pydicom.dcmread(files(tiny, "seg")[0])
    inside = nifti_at(predicted, positions_of(frames))[frames.pixel_array > 0]
    assert (inside == 1).all()
    assert inside.size == volume.array.sum()
    segment = labels.get_segment_description(1)
    assert (segment.segment_label, "net" in segment.SegmentAlgorithmName) == ("class 1", True)


def test_identity_is_in_the_objects_and_nowhere_else(run: TinyStudy) -> None:
    before = {name for name in run.files(run.run) if not name.startswith("dicom")}
    assert export(run, "--study", str(run.file)).exit_code == 0
    written = {name for name in run.files(run.run) if not name.startswith("dicom")}
    assert written == before
    for file in (*files(run, "pm"), *files(run, "seg"), *files(run, "sc")):
        data = pydicom.dcmread(file)
        assert data.PatientName == "MARKERDOE^Jürgen"
        assert (data.PatientID, data.StudyInstanceUID) == ("MARKERDOE7", "1.2.826.7")
        assert data.StudyDescription == "MARKERDOE"
        assert "MARKERDOE" not in data.SeriesDescription
    for file in run.run.rglob("*"):
        if file.is_file() and "dicom" not in file.parts:
            assert b"MARKERDOE" not in file.read_bytes()
            assert b"1.2.826.7" not in file.read_bytes()


def test_a_figure_is_a_plain_picture_with_its_caption(run: TinyStudy) -> None:
    assert export(run, "--study", str(run.file)).exit_code == 0
    (file,) = files(run, "sc")
    data = pydicom.dcmread(file)
    assert data.pixel_array.shape == (data.Rows, data.Columns, 3)
    caption = data.pixel_array[-60:]
    assert caption.max() > 200  # letters
    assert "Strongest evidence" in data.DerivationDescription


def test_the_same_again_keeps_what_is_there_and_replaces_what_is_not(run: TinyStudy) -> None:
    source = f"a={run.folder / 'MARKERDOE'}"
    assert "3 objects written" in export(run, "--source", source).output
    (file,) = files(run, "pm")
    before = pydicom.dcmread(file).SOPInstanceUID
    assert "0 objects written, 3 kept" in export(run, "--source", source).output
    file.write_bytes(file.read_bytes()[:-100])
    assert "1 objects written, 2 kept" in export(run, "--source", source).output
    assert pydicom.dcmread(file).SOPInstanceUID == before
    shutil.rmtree(run.run / "dicom")
    assert "3 objects written" in export(run, "--source", source).output
    assert pydicom.dcmread(file).SOPInstanceUID == before


def test_another_series_is_refused_and_a_folder_of_several_is_searched(run: TinyStudy) -> None:
    other = write_series(run.folder / "other", VOXELS + 1, **PATIENT)
    result = export(run, "--source", f"a={other}")
    assert result.exit_code == 1
    assert "not the one that was explained" in " ".join(result.output.split())
    both = run.folder / "both"
    write_series(both, VOXELS, **PATIENT)
    for number, file in enumerate(other.iterdir()):
        data = pydicom.dcmread(file)
        data.SeriesNumber, data.SeriesInstanceUID = 1, "1.2.9"
        data.save_as(both / f"other{number}.dcm")
    assert export(run, "--source", f"a={both}").exit_code == 0
    assert not (run.run / "dicom" / "b").exists()


def test_a_source_that_is_no_dicom_is_said_per_case(tiny: TinyStudy) -> None:
    run_study(Study.load(tiny.file))
    result = export(tiny, "--study", str(tiny.file))
    assert result.exit_code == 1
    text = " ".join(result.output.split())
    assert "case a: its source first.nii.gz is no DICOM" in text
    assert "case b: its source second.nii.gz is no DICOM" in text
    assert export(tiny, "--study", str(tiny.file), "--case", "c").exit_code == 2
    assert export(tiny).exit_code == 2


def test_channels_of_an_image_are_maps_beside_their_sum(tiny: TinyStudy) -> None:
    names = ("t1", "t2")
    for name in names:
        write_series(
            tiny.folder / name, VOXELS, **{**PATIENT, "SeriesInstanceUID": f"1.2.{name[1]}"}
        )
    model = {"name": "net", "factory": "tiny_net:build", "arguments": {"channels": 2}}
    normalize = [{"kind": "normalize", "mode": "zscore"}]
    tiny.write(
        cases=[{"id": "a", "image": [*names], "channels": [*names]}],
        models=[{**model, "preprocess": normalize}],
        methods=["saliency"],
    )
    run_study(Study.load(tiny.file))
    assert export(tiny, "--source", "a=t1").exit_code == 1
    assert export(tiny, "--study", str(tiny.file), "-m", "sal*").exit_code == 0
    total, *channels = [pydicom.dcmread(file) for file in files(tiny, "pm")]
    first, second = (np.frombuffer(data.FloatPixelData, "<f4") for data in channels)
    assert np.allclose(np.frombuffer(total.FloatPixelData, "<f4"), first + second)
    assert len({data.SOPInstanceUID for data in (total, *channels)}) == 3
    assert {data.SeriesInstanceUID for data in channels} == {total.SeriesInstanceUID}
    series = [each.SeriesInstanceUID for each in total.ReferencedSeriesSequence]
    assert series == ["1.2.1", "1.2.2"]
