"""A filter that keeps paths and identifiers out of the files of a run directory."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from voxplain.study.config.case_files import files_of
from voxplain.study.planning.checked_study import CheckedStudy
from voxplain.study.planning.images import ImageSource
from voxplain.study.planning.networks import NetworkSource

# DICOM UIDs: at least five numbers joined by dots.
_UID = re.compile(r"\b\d+(?:\.\d+){4,}\b")
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][^\s'\"\\/:,;()]+){2,}[\\/]?")


class Redactor:
    """Replaces the source files of a study, other paths and UIDs in a text.

    Args:
        sources: Files, and folders of files, whose names are replaced.
        base: The folder of the study; its path is replaced, the names of files in it are not.
    """

    def __init__(self, sources: Iterable[Path], base: Path | None = None) -> None:
        words = {word for path in sources for word in _names(path)}
        words |= {str(base)} if base is not None else set()
        longest_first = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
        self._sources = re.compile(rf"(?<!\w)(?:{longest_first})(?!\w)" if words else r"(?!)")

    def __call__(self, text: str) -> str:
        """The text with ``<file>``, ``<path>`` and ``<uid>`` in place of these names."""
        text = self._sources.sub("<file>", text)
        return _UID.sub("<uid>", _PATH.sub("<path>", text))


def redactor_of(checked: CheckedStudy) -> Redactor:
    """The filter that knows every source file of a study."""
    sources: list[ImageSource | NetworkSource] = [
        *(checked.image_source(case) for case in checked.cases),
        *checked.reference_sources,
        *(loaded.source for loaded in checked.models.values()),
    ]
    declarations = [
        *(combination.target for combination in checked.combinations),
        *(method for task in checked.plan.tasks for method in task.methods.values()),
    ]
    files = {file for source in sources for file in source.files}
    files |= {Path(file) for declaration in declarations for file in files_of(declaration)}
    return Redactor(files, checked.study.base)


def _names(path: Path) -> list[str]:
    inside = [file.name for file in path.iterdir()] if path.is_dir() else []
    return [str(path), path.name, *inside]
