"""Figures as Secondary Captures, which every viewer shows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.io.dicom_export.identity import ObjectIdentity, file_of, making
from voxplain.io.dicom_export.source import SourceSeries


def secondary_capture(
    source: SourceSeries, picture: NDArray[np.uint8], derivation: str, identity: ObjectIdentity
) -> bytes:
    """The file of a Secondary Capture, uncompressed.

    Args:
        source: The series that the figure is about.
        picture: ``(rows, columns, 3)``, red, green and blue.
        derivation: What it shows, in words.
        identity: Of the object.

    Raises:
        InputError: If the series lacks attributes that the object needs.
    """
    with making("a secondary capture"):
        return file_of(_made(source, picture, derivation, identity), source)


def _made(
    source: SourceSeries, picture: NDArray[np.uint8], derivation: str, identity: ObjectIdentity
) -> Any:
    import highdicom

    made = highdicom.sc.SCImage(
        pixel_array=np.ascontiguousarray(picture),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        study_instance_uid=source.study,
        **identity.facts(),
    )
    made.PatientOrientation = []  # several planes side by side have none
    made.DerivationDescription = derivation[:1024]
    # Whether pixels of the source show a name or a face is not known here; if it says so, it stays.
    for name in ("BurnedInAnnotation", "RecognizableVisualFeatures"):
        if source.header.get(name) == "YES":
            setattr(made, name, "YES")
    made.SourceImageSequence = [_reference(image) for image in source.images]
    return made


def _reference(image: Any) -> Any:
    from pydicom import Dataset

    reference = Dataset()
    reference.ReferencedSOPClassUID = image.SOPClassUID
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return reference
