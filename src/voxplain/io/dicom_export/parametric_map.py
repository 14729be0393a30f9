"""Attribution maps as Parametric Maps: 32-bit numbers with their unit, on the source series."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.io.dicom_export.identity import ObjectIdentity, file_of, making, words
from voxplain.io.dicom_export.place import FramePlace
from voxplain.io.dicom_export.source import SourceSeries

_NO_UNITS = ("1", "UCUM")


@dataclass(frozen=True)
class MapContent:
    """What the numbers of a map are.

    Attributes:
        name: Of the map, such as ``Saliency``.
        method: Registry name of its method.
        meaning: Of its numbers, in a sentence.
        units: Of its numbers, in words.
        target: What was explained, in words.
        signed: Whether both signs have a meaning.
        limit: Magnitude at which a display should saturate.
        derivation: How the map was made.
    """

    name: str
    method: str
    meaning: str
    units: str
    target: str
    signed: bool
    limit: float
    derivation: str


def parametric_map(
    source: SourceSeries,
    values: NDArray[np.float32],
    content: MapContent,
    identity: ObjectIdentity,
    *,
    place: FramePlace | None = None,
    further: Sequence[SourceSeries] = (),
) -> bytes:
    """The file of a Parametric Map.

    The standard places every map. On a radiograph without a place it lies on a plane of its own,
    in a frame of reference of its own, and names the image that it covers pixel by pixel.

    Args:
        source: The series that was explained.
        values: ``(frames, rows, columns)``.
        content: What the numbers are.
        identity: Of the object.
        place: Of the frames; that of the source if None.
        further: Other series of the same study that were channels of the image.

    Raises:
        InputError: If the series lacks attributes that the object needs.
    """
    with making("a parametric map"):
        return file_of(_made(source, values, content, identity, place, further), source)


def _made(
    source: SourceSeries,
    values: NDArray[np.float32],
    content: MapContent,
    identity: ObjectIdentity,
    place: FramePlace | None,
    further: Sequence[SourceSeries],
) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    mapping = highdicom.pm.RealWorldValueMapping(
        lut_label=words(content.name, 16),
        lut_explanation=words(f"{content.units}: {content.target}"),
        unit=Code(*_NO_UNITS, words(content.units) or "no units"),
        value_range=(float(values.min()), float(values.max())),
        quantity_definition=codes.DCM.ClassActivation,
    )
    low, high = (-content.limit if content.signed else 0.0), content.limit
    source = source.with_plane()
    made = highdicom.pm.ParametricMap(
        source_images=source.images,
        pixel_array=values,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[
            highdicom.VOILUTTransformation(
                window_center=(low + high) / 2,
                window_width=(high - low) or 1.0,
                voi_lut_function=highdicom.VOILUTFunctionValues.LINEAR_EXACT,
            )
        ],
        content_label=_code(content.method),
        content_description=words(f"{content.name}: {content.target}"),
        image_flavor=highdicom.pm.ImageFlavorValues.VOLUME,
        derived_pixel_contrast=highdicom.pm.DerivedPixelContrastValues.QUANTITY,
        further_source_images=[image for each in further for image in each.images],
        **(place or source.place).facts(),
        **identity.facts(),
    )
    made.DerivationDescription = words(f"{content.meaning} {content.derivation}", 1024)
    return made


def _code(name: str) -> str:
    """A name as a code string: capital letters, digits and ``_``, a letter first."""
    plain = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")
    return (plain if plain[:1].isalpha() else f"MAP_{plain}")[:16].strip("_")
