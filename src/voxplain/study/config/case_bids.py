"""Cases from a BIDS tree: one per subject, or per session of a subject."""

from __future__ import annotations

import glob
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from voxplain.errors import ConfigError, VoxplainWarning, nearest
from voxplain.study.config.case_sources import CaseSource, Patterns, existing_folder
from voxplain.study.config.cases import CaseConfig, listed

_ENDINGS = (".nii.gz", ".nii")


def _texts(value: object) -> object:
    """Values of entities as text: ``run: 1`` is the text 1."""
    if not isinstance(value, Mapping):
        return value
    return {name: each if isinstance(each, str) else f"{each}" for name, each in value.items()}


class CaseBids(CaseSource):
    """The subjects of a BIDS tree, or the sessions of each; the id is ``sub-01_ses-02``.

    The patient is the subject. Sessions without any of the images are left out.

    Attributes:
        bids: Folder of the tree, with the folders ``sub-...`` in it.
        suffix: Of the images, such as ``T1w``; several are the channels.
        session: Only the sessions whose label fits one of these patterns.
        datatype: Only images in this folder, such as ``anat``.
        entities: What else the names of the images hold, such as ``{acq: mprage, run: 1}``; needed
            where there are several images of one suffix.
        reference: File of the reference, from the folder of the tree; ``{id}``, ``{subject}`` and
            ``{session}`` stand for ``sub-01_ses-02``, ``sub-01`` and ``ses-02``, and ``*`` for any
            text. A part of the path that is an empty ``{session}`` is left out.
    """

    bids: Path
    suffix: Annotated[tuple[str, ...], BeforeValidator(listed), Field(min_length=1)]
    session: Patterns = ()
    datatype: str | None = None
    entities: Annotated[dict[str, str], BeforeValidator(_texts)] = Field(default_factory=dict)
    reference: str | None = None

    def all_cases(self, base: Path) -> list[CaseConfig]:
        """A case per subject and session.

        Raises:
            ConfigError: With the id of the case.
        """
        root = existing_folder(base / self.bids)
        cases, partial, suffixes = [], [], set[str]()
        for scan in _visits(root):
            if not self._takes(scan):
                continue
            images = self._images(scan)
            suffixes |= images.keys()
            found = [images[suffix] for suffix in self.suffix if suffix in images]
            if len(found) == len(self.suffix):
                cases.append(self._case(root, scan, found))
            elif found:
                partial.append(scan.id)
        if not cases:
            wanted = next((each for each in self.suffix if each not in suffixes), self.suffix[0])
            raise ConfigError(
                f"cases: {root}: no subject has images with the suffix {' and '.join(self.suffix)}"
                f"; of {wanted!r}: {nearest(wanted, suffixes)}"
            )
        if partial:
            text = f"cases: {len(partial)} of {root.name} lack an image, the first is {partial[0]}"
            warnings.warn(text, VoxplainWarning, stacklevel=2)
        return cases

    def _takes(self, scan: _Visit) -> bool:
        label = scan.session.removeprefix("ses-")
        return not self.session or any(
            fnmatchcase(label, each.removeprefix("ses-")) for each in self.session
        )

    def _images(self, scan: _Visit) -> dict[str, Path]:
        """The images of a session that have the entities, by suffix.

        Raises:
            ConfigError: If there are two of one suffix that is wanted.
        """
        found: dict[str, Path] = {}
        for file in _files(scan.folder, self.datatype):
            entities, suffix = _parts(file.name)
            if any(entities.get(name) != value for name, value in self.entities.items()):
                continue
            if suffix in found and suffix in self.suffix:
                raise ConfigError(
                    f"cases: {scan.id} has two images {suffix}, {found[suffix].name} and "
                    f"{file.name}; entities, such as {{run: 1}}, chooses one"
                )
            found[suffix] = file
        return found

    def _case(self, root: Path, scan: _Visit, images: list[Path]) -> CaseConfig:
        return self.case(
            f"cases: {scan.id}",
            id=scan.id,
            patient=scan.subject,
            image=tuple(images),
            channels=self.suffix if len(self.suffix) > 1 else None,
            reference=self._reference(root, scan),
        )

    def _reference(self, root: Path, scan: _Visit) -> Path | None:
        if self.reference is None:
            return None
        stated = {"{id}": scan.id, "{subject}": scan.subject, "{session}": scan.session}
        text = self.reference
        for name, value in stated.items():
            text = text.replace(name, value)
        text = re.sub(r"/{2,}", "/", text)
        if "*" not in text:
            files = [root / text] if (root / text).exists() else []
        else:
            files = [Path(file) for file in sorted(glob.glob(f"{glob.escape(str(root))}/{text}"))]
        if len(files) != 1:
            number = "no file fits" if not files else f"{len(files)} files fit"
            raise ConfigError(f"cases: {scan.id}: {number} the reference {text}")
        return files[0]


@dataclass(frozen=True)
class _Visit:
    """The images of a subject in one session; ``session`` is empty where there are none."""

    subject: str
    session: str
    folder: Path

    @property
    def id(self) -> str:
        return "_".join(filter(None, (self.subject, self.session)))


def _visits(root: Path) -> Iterator[_Visit]:
    subjects = _folders(root, "sub-")
    if not subjects:
        raise ConfigError(f"cases: {root} has no folders sub-..., so it is no BIDS tree")
    for subject in subjects:
        sessions = _folders(root / subject, "ses-")
        for session in sessions:
            yield _Visit(subject, session, root / subject / session)
        if not sessions:
            yield _Visit(subject, "", root / subject)


def _folders(root: Path, prefix: str) -> list[str]:
    with os.scandir(root) as entries:
        return sorted(
            each.name for each in entries if each.name.startswith(prefix) and each.is_dir()
        )


def _files(folder: Path, datatype: str | None) -> Iterator[Path]:
    """The NIfTI files in the folders of a session, ``anat``, ``dwi`` and so on."""
    for name in [datatype] if datatype else _folders(folder, ""):
        if (folder / name).is_dir():
            names = sorted(os.listdir(folder / name))
            yield from (folder / name / each for each in names if each.endswith(_ENDINGS))


def _parts(name: str) -> tuple[dict[str, str], str]:
    """The entities and the suffix of ``sub-01_acq-mprage_T1w.nii.gz``."""
    *pairs, suffix = name.partition(".")[0].split("_")
    split = (pair.partition("-") for pair in pairs)
    return {entity: value for entity, _, value in split}, suffix
