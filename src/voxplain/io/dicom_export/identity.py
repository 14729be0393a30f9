"""How an object is named, and what it takes over from its source before it is written."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from voxplain.errors import InputError, without_warnings
from voxplain.version import __version__

if TYPE_CHECKING:
    from voxplain.io.dicom_export.source import SourceSeries

_ROOT = uuid.UUID("8e0f7a3c-55d1-5c1b-9a3e-6f1d2b7c4a90")
"""All identifiers derive from it."""

_UTF_8 = "ISO_IR 192"


@dataclass(frozen=True)
class ObjectIdentity:
    """What tells one object from others.

    Attributes:
        series: UID of its series.
        instance: UID of the object.
        series_number: Of its series in the study.
        number: Of the object in its series, from 1.
        description: Of its series, in words.
    """

    series: str
    instance: str
    series_number: int
    number: int
    description: str

    def facts(self) -> dict[str, Any]:
        """The same, with the equipment, as arguments of highdicom."""
        return {
            "series_instance_uid": self.series,
            "sop_instance_uid": self.instance,
            "series_number": self.series_number,
            "instance_number": self.number,
            "series_description": words(self.description),
            "manufacturer": "voxplain",
            "manufacturer_model_name": "voxplain",
            "software_versions": __version__,
            "device_serial_number": __version__,
        }


def uid(*parts: object) -> str:
    """The identifier of what these parts name, always the same one."""
    name = "\x1f".join(map(str, parts))
    return f"2.25.{uuid.uuid5(_ROOT, name).int}"


def words(text: str, length: int = 64) -> str:
    """A text as DICOM takes it: on one line, without backslashes, of a length at most."""
    line = " ".join(text.replace("\\", "/").split())
    line = "".join(letter for letter in line if letter.isprintable())
    return line if len(line) <= length else line[: length - 3].rstrip() + "..."


@contextmanager
def making(what: str) -> Iterator[None]:
    """Turns an error of highdicom into one sentence.

    Raises:
        InputError: With the type of the error, as its text may quote the source.
    """
    try:
        with without_warnings():
            yield
    except ImportError:
        raise InputError("writing DICOM needs highdicom; pip install 'voxplain[dicom]'") from None
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{what} does not fit the attributes of the source series ({type(error).__name__})"
        ) from error


def file_of(made: Any, source: SourceSeries) -> bytes:
    """The content of the file of an object, with the patient and the study of its source."""
    made.copy_patient_and_study_information(source.header)
    # Names of the source are decoded; names of classes and methods may need other letters.
    made.SpecificCharacterSet = _UTF_8
    _state_body_part(made, source.header)
    if source.place.positions is None and "PatientOrientation" not in made:
        made.PatientOrientation = source.header.get("PatientOrientation") or None
    stream = io.BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _state_body_part(made: Any, header: Any) -> None:
    """Takes the body part over with its side; where the source states neither, it is unknown."""
    for name in ("BodyPartExamined", "Laterality"):
        if header.get(name):
            setattr(made, name, header.get(name))
    if "BodyPartExamined" not in made and "Laterality" not in made and made.Modality != "SEG":
        made.Laterality = None
