"""A run as DICOM objects, in a folder of its own: maps, segmentations and figures."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Any

from voxplain.errors import ConfigError, VoxplainError, nearest
from voxplain.records.atomic import atomic_write
from voxplain.records.manifest import CaseRecord, Manifest
from voxplain.records.names import safe
from voxplain.records.outcome import seal
from voxplain.study.config.cases import CaseConfig
from voxplain.study.execution.store import Store
from voxplain.study.export.objects import PlannedObject, planned_objects
from voxplain.study.export.sources import explained_series

FOLDER = "dicom"
_INDEX = "objects.json"


@dataclass(eq=False)
class CaseExport:
    """What came of one case.

    Attributes:
        case: Its id.
        written: Files that are new or have changed.
        kept: Files of an earlier export that are as they should be.
        problems: What could not be exported, in sentences.
    """

    case: str
    written: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def export_dicom(
    folder: str | Path,
    sources: Mapping[str, CaseConfig],
    *,
    cases: Sequence[str] = (),
    methods: Sequence[str] = (),
    done: Callable[[CaseExport], None] = lambda _: None,
) -> list[CaseExport]:
    """Writes the DICOM objects of a run into ``dicom/<case>/``; those that are right are kept.

    Args:
        folder: The run directory.
        sources: Where the series of each case are.
        cases: Ids, with ``*`` for anything; every case if empty.
        methods: Keys of maps or names of methods, with ``*`` for anything; all maps if empty.
        done: Called after each case.

    Raises:
        ConfigError: If the folder holds no run, no case or method fits, or somebody writes into it.
        InputError: If the run holds a link.
    """
    store = Store(Path(folder))
    manifest = store.manifest()
    chosen = [record for record in manifest.cases if _fits(record.id, cases)]
    _require_known("case", cases, [record.id for record in manifest.cases])
    names = [name for record in manifest.maps for name in (record.label, record.method)]
    _require_known("method", methods, names)
    found = []
    with store.locked():
        for record in chosen:
            export = CaseExport(record.id)
            try:
                _export_case(store.folder, manifest, record, sources, methods, export)
            except VoxplainError as error:
                export.problems.append(str(error))
            found.append(export)
            done(export)
    return found


def _export_case(
    run: Path,
    manifest: Manifest,
    record: CaseRecord,
    sources: Mapping[str, CaseConfig],
    methods: Sequence[str],
    export: CaseExport,
) -> None:
    image, series = explained_series(record, sources)
    folder = run / FOLDER / safe(record.id)
    index = _Index(folder)
    patient = sha256(series[0].header.to_json(suppress_invalid_tags=True).encode()).hexdigest()
    try:
        for planned in _chosen(
            planned_objects(run, manifest, record, image, series, export.problems), methods
        ):
            key = sha256(f"{planned.key}\n{patient}".encode()).hexdigest()
            if index.keeps(planned.file, key):
                export.kept.append(folder / planned.file)
                continue
            try:
                content = planned.make()
            except VoxplainError as error:
                export.problems.append(f"{planned.file}: {error}")
                continue
            export.written.append(atomic_write(folder / planned.file, content))
            index.add(planned.file, key)
        if not methods and not export.problems:
            index.remove_others({file.name for file in (*export.written, *export.kept)})
    finally:
        index.write()


def _chosen(objects: Iterator[PlannedObject], methods: Sequence[str]) -> Iterator[PlannedObject]:
    for planned in objects:
        if not planned.names or any(_fits(name, methods) for name in planned.names):
            yield planned


class _Index:
    """The objects of a case with the key of each, which tells whether it is still right."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError, TypeError):
            self._entries = dict(json.loads((folder / _INDEX).read_text(encoding="utf-8")))

    def keeps(self, file: str, key: str) -> bool:
        """Whether a file was made with this key and is as it was written."""
        path = self._folder / file
        return path.is_file() and self._entries.get(file) == [key, seal(path)]

    def add(self, file: str, key: str) -> None:
        """Notes a file that was written."""
        self._entries[file] = [key, seal(self._folder / file)]

    def remove_others(self, files: set[str]) -> None:
        """Removes objects of earlier exports whose map is no longer in the run."""
        for file in self._entries.keys() - files:
            if Path(file).name == file:
                (self._folder / file).unlink(missing_ok=True)
            del self._entries[file]

    def write(self) -> None:
        """Writes it beside the objects, if there are any."""
        if self._entries:
            atomic_write(self._folder / _INDEX, json.dumps(self._entries, indent=1))


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def _require_known(what: str, patterns: Sequence[str], names: Sequence[str]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"no {what} of the run is called {pattern!r}; {nearest(pattern, {*names})}"
            )
