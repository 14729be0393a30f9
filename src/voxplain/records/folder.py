"""What may stand in a run directory besides the files of a run, and what may not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from voxplain.errors import InputError
from voxplain.records.atomic import TEMPORARY

OWN_FOLDERS = ("images", "maps", "figures", "randomization", "tasks", ".scores", "dicom")
"""Folders of a run directory that nobody but voxplain writes into."""

_LEFT_BY_SYSTEMS = {".DS_Store", "Thumbs.db", "desktop.ini"}


def refuse_links(run: Path) -> None:
    """Refuses a run directory in which a link stands where voxplain writes or reads.

    Raises:
        InputError: With the name of the link.
    """
    for path in _own_files(run):
        if path.is_symlink():
            name = path.relative_to(run)
            raise InputError(
                f"{run} holds {name}, a symbolic link, so that a run would write elsewhere; put a "
                "file or folder in its place"
            )


def sweep(run: Path) -> None:
    """Removes temporary files that a killed run left behind, and no others."""
    for path in _own_files(run):
        if TEMPORARY.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)


def is_left_by_system(name: str) -> bool:
    """Whether a file is one that systems and killed runs leave in any folder."""
    return name in _LEFT_BY_SYSTEMS or TEMPORARY.fullmatch(name) is not None


def _own_files(run: Path) -> Iterator[Path]:
    """Everything at the top of a run directory, and inside of its own folders."""
    for entry in _listed(run):
        yield Path(entry.path)
        if entry.name in OWN_FOLDERS and entry.is_dir(follow_symlinks=False):
            for folder, folders, files in os.walk(entry.path):
                yield from (Path(folder, name) for name in (*folders, *files))


def _listed(run: Path) -> list[os.DirEntry[str]]:
    if not run.is_dir():
        return []
    with os.scandir(run) as entries:
        return sorted(entries, key=lambda entry: entry.name)
