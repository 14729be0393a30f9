"""Files that are there whole or not at all, and the hash by which a file is known."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

_CHUNK = 1 << 20
TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{16}")
"""Names of files that are not whole yet."""


def atomic_write(path: str | Path, content: bytes | str) -> Path:
    """Writes a file under a temporary name, syncs it, and renames it into place.

    A process killed at any moment leaves either the old file, the new one, or none; never a part.
    A loss of power may take back the renaming of the last seconds, and leaves the old file or none.

    Args:
        path: The final name; missing folders are made.
        content: Bytes, or text to be stored as UTF-8.

    Returns:
        The final name.
    """
    path = Path(path)
    temporary = path.parent / f".tmp-{secrets.token_hex(8)}"
    try:
        with _created(temporary) as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def _created(path: Path) -> BinaryIO:
    """A new file, open to be written; missing folders are made."""
    try:
        return path.open("xb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")


def sha256(path: str | Path | Sequence[str | Path]) -> str:
    """The hash of a file's content; of a folder or several files, of what they hold together.

    Names play no part: a renamed or moved source is the same source. The order of several files
    counts (they are channels), the order within a folder does not.
    """
    if not isinstance(path, (str, Path)):
        return hashlib.sha256("\n".join(sha256(each) for each in path).encode()).hexdigest()
    path = Path(path)
    if path.is_dir():
        parts = sorted(sha256(each) for each in path.rglob("*") if each.is_file())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
