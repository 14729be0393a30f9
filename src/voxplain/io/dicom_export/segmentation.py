"""Predicted labels as a binary Segmentation on the source series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.io.dicom_export.codes import codes_of
from voxplain.io.dicom_export.identity import ObjectIdentity, file_of, making, words
from voxplain.io.dicom_export.source import SourceSeries
from voxplain.version import __version__


@dataclass(frozen=True)
class Segment:
    """One label of a label map.

    Attributes:
        label: Its number in the label map.
        name: Of its class.
    """

    label: int
    name: str


def segmentation(
    source: SourceSeries,
    labels: NDArray[np.integer[Any]],
    segments: Sequence[Segment],
    model: str,
    identity: ObjectIdentity,
    *,
    further: Sequence[SourceSeries] = (),
) -> bytes:
    """The file of a binary Segmentation, whose segments are numbered from 1 in the order given.

    Args:
        source: The series on which the labels were predicted.
        labels: ``(frames, rows, columns)``; labels without a segment are left out.
        segments: At least one.
        model: Name of the network.
        identity: Of the object.
        further: Other series of the same study that were channels of the image.

    Raises:
        InputError: If the series lacks attributes that the object needs.
    """
    with making("a segmentation"):
        return file_of(_made(source, labels, segments, model, identity, further), source)


def _made(
    source: SourceSeries,
    labels: NDArray[np.integer[Any]],
    segments: Sequence[Segment],
    model: str,
    identity: ObjectIdentity,
    further: Sequence[SourceSeries],
) -> Any:
    import highdicom

    numbers = np.zeros(labels.shape, np.uint16)
    for number, segment in enumerate(segments, start=1):
        numbers[labels == segment.label] = number
    return highdicom.seg.Segmentation(
        source_images=source.images,
        pixel_array=numbers,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _description(number, segment, model) for number, segment in enumerate(segments, start=1)
        ],
        content_label="PREDICTION",
        content_description=words(f"prediction of {model}"),
        further_source_images=[image for each in further for image in each.images],
        **source.place.facts(),
        **identity.facts(),
    )


def _description(number: int, segment: Segment, model: str) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes

    category, kind = codes_of(segment.name)
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=words(segment.name),
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=words(f"{model}, run by voxplain"),
            family=codes.cid7162.ArtificialIntelligence,
            version=__version__,
            source="voxplain",
        ),
    )
