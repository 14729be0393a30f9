"""Synthetic DICOM series with known geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

TURN, _ = np.linalg.qr(np.array([[1.0, 0.2, -0.1], [-0.25, 1.0, 0.3], [0.1, -0.2, 1.0]]))
TURN = TURN * np.sign(np.diag(TURN))
ORIENTATION = TURN[:, :2].T  # Along a row, down a column (LPS).
NORMAL = np.cross(*ORIENTATION)
ORIGIN = np.array([-91.5, 44.25, 17.75])
SPACING = (0.7, 0.9)  # Between rows, between columns.
GAP = 2.5


def known_affine(step: np.ndarray = NORMAL * GAP) -> np.ndarray:
    """(column, row, slice) to RAS mm, from the numbers above."""
    affine = np.eye(4)
    affine[:3, 0] = ORIENTATION[0] * SPACING[1]
    affine[:3, 1] = ORIENTATION[1] * SPACING[0]
    affine[:3, 2] = step
    affine[:3, 3] = ORIGIN
    return np.diag([-1, -1, 1, 1]) @ affine


def write_slice(path: Path, values: np.ndarray, **attributes: Any) -> FileDataset:
    """One file with int16 pixels; attributes override or, where None, remove the defaults."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    colored = values.ndim == 3 and values.shape[-1] == 3
    bits = values.dtype.itemsize * 8
    defaults: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "SeriesInstanceUID": "1.2.3",
        "Modality": "CT",
        "Rows": values.shape[-2 - colored],
        "Columns": values.shape[-1 - colored],
        "SamplesPerPixel": 3 if colored else 1,
        "PhotometricInterpretation": "RGB" if colored else "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(values.dtype.kind == "i"),
        "SliceThickness": 5.0,
        "RescaleSlope": 2,
        "RescaleIntercept": -1000,
        "PixelSpacing": list(SPACING),
        "ImageOrientationPatient": [float(f"{cosine:.9f}") for cosine in ORIENTATION.ravel()],
    }
    if colored:
        defaults["PlanarConfiguration"] = 0
    for name, value in (defaults | attributes).items():
        if value is not None:
            setattr(data, name, value)
    data.PixelData = np.ascontiguousarray(values).tobytes()
    data.save_as(path, enforce_file_format=True)
    return data


def write_series(
    folder: Path,
    values: np.ndarray,
    *,
    step: np.ndarray = NORMAL * GAP,
    keep: list[int] | None = None,
    **attributes: Any,
) -> Path:
    """A folder of slices ``(slices, rows, columns)``, named in the reverse of their order."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in keep if keep is not None else range(len(values)):
        position = [float(f"{value:.6f}") for value in ORIGIN + index * step]
        name = folder / f"{len(values) - index:03}.dcm"
        write_slice(name, values[index], **{"ImagePositionPatient": position} | attributes)
    return folder


def write_enhanced(path: Path, values: np.ndarray) -> Path:
    """One multi-frame file with functional groups, frames in a shuffled order."""
    order = np.random.default_rng(0).permutation(len(values))
    frames = []
    for index in order:
        position = pydicom.Dataset()
        position.ImagePositionPatient = [float(f"{p:.6f}") for p in ORIGIN + index * NORMAL * GAP]
        frame = pydicom.Dataset()
        frame.PlanePositionSequence = Sequence([position])
        frames.append(frame)
    measures, plane, rescale = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(SPACING), 5.0
    plane.ImageOrientationPatient = [float(f"{cosine:.9f}") for cosine in ORIENTATION.ravel()]
    rescale.RescaleSlope, rescale.RescaleIntercept = 2, -1000
    shared = pydicom.Dataset()
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([plane])
    shared.PixelValueTransformationSequence = Sequence([rescale])
    write_slice(
        path, values[order], NumberOfFrames=len(values), PixelSpacing=None, RescaleSlope=None,
        RescaleIntercept=None, ImageOrientationPatient=None, SliceThickness=None,
        PerFrameFunctionalGroupsSequence=Sequence(frames),
        SharedFunctionalGroupsSequence=Sequence([shared]),
    )  # fmt: skip
    return path
