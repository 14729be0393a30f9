"""The images of a study: where they come from, how they are read, the hash of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from voxplain.errors import InputError
from voxplain.image import Image
from voxplain.io import read_image
from voxplain.records.atomic import sha256
from voxplain.records.manifest import CaseRecord
from voxplain.study.config.cases import CaseConfig
from voxplain.study.config.study import StudyConfig
from voxplain.study.planning.messages import errors_at


@dataclass(frozen=True)
class ImageSource:
    """Where an image comes from, and what it held when the study was checked.

    Attributes:
        case: Its files, as absolute paths.
        sha256: Hash of its voxels and of where they lie.
    """

    case: CaseConfig
    sha256: str

    @property
    def files(self) -> list[Path]:
        """Every file of the case."""
        return [path for path in (*self.case.image, self.case.reference) if path]

    def read(self) -> Image:
        """The image.

        Raises:
            InputError: If it cannot be read, or has changed since the study was checked.
        """
        image = read_case(self.case)
        if content_sha256(image) != self.sha256:
            raise InputError(
                f"case {self.case.id}: the image has changed since the study was checked; run the "
                "study again"
            )
        return image


def read_case(case: CaseConfig) -> Image:
    """The image of a case.

    Raises:
        InputError: With the id of the case, if a file is missing, broken or holds NaN.
    """
    with errors_at(f"case {case.id}"):
        spacing = case.spacing[0] if case.spacing and len(case.spacing) == 1 else case.spacing
        return read_image(
            case.image,
            channels=case.channels,
            rank=case.rank,
            spacing=spacing,
            series=case.series,
        )


def content_sha256(image: Image) -> str:
    """A hash of the voxels and of where they lie, whatever file they came in."""
    digest = hashlib.sha256(repr((image.data.shape, image.grid.unit)).encode())
    digest.update(image.grid.affine.tobytes())
    digest.update(image.data.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def case_record(name: str, case: CaseConfig, image: Image, texts: list[str]) -> CaseRecord:
    """What the manifest says of a case.

    Args:
        name: Its id.
        case: With its files.
        image: As it was read.
        texts: Remarks.
    """
    grid = image.source_grid
    return CaseRecord(
        id=name,
        patient=case.patient,
        image_sha256=content_sha256(image),
        image=f"images/{name}_image.nii.gz",
        reference=f"images/{name}_ref.nii.gz" if case.reference else None,
        reference_sha256=sha256(case.reference) if case.reference else None,
        reference_ignore=case.reference_ignore,
        shape=grid.shape,
        spacing=grid.spacing,
        unit=grid.unit,
        orientation=grid.orientation,
        channels=image.channels,
        warnings=texts,
    )


def reference_cases(study: StudyConfig, cases: Mapping[str, CaseConfig]) -> list[CaseConfig]:
    """The reference images of a study, each as a case: cases by id, or files of their own.

    Raises:
        InputError: If one is neither.
    """
    return [_reference(name, study.base, cases) for name in study.references]


def _reference(name: str, base: Path, cases: Mapping[str, CaseConfig]) -> CaseConfig:
    if name in cases:
        return cases[name]
    if not (base / name).exists():
        raise InputError(f"references: {name!r} is neither the id of a case nor a file")
    return CaseConfig(id="reference", image=(base / name,))
