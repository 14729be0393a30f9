"""Writing of DICOM objects on a source series: maps, segmentations and pictures.

They carry the patient and the study of their source, so that an archive can file them.
"""

from __future__ import annotations

from voxplain.io.dicom_export.identity import ObjectIdentity, uid
from voxplain.io.dicom_export.parametric_map import MapContent, parametric_map
from voxplain.io.dicom_export.picture import secondary_capture
from voxplain.io.dicom_export.place import FramePlace, frames_of
from voxplain.io.dicom_export.segmentation import Segment, segmentation
from voxplain.io.dicom_export.source import SourceSeries, read_source

__all__ = [
    "FramePlace",
    "MapContent",
    "ObjectIdentity",
    "Segment",
    "SourceSeries",
    "frames_of",
    "parametric_map",
    "read_source",
    "secondary_capture",
    "segmentation",
    "uid",
]
