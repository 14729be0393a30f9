"""The figures of a run, drawn once and kept as long as they would look the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from PIL import Image, features

from voxplain.errors import InputError
from voxplain.records.atomic import atomic_write
from voxplain.viz.drawing import png
from voxplain.viz.embed import figure_bytes, image_uri

KEYS = "figures/figures.json"
"""The key of every figure, by its file: the hash of all that decides how it looks."""


class KeptFigures:
    """The folder ``figures/`` of a run: each figure without losses, and a small copy for pages.

    Args:
        run: The run directory.

    Raises:
        InputError: If ``figures`` is a link, which would lead out of the run directory.
    """

    def __init__(self, run: Path) -> None:
        if (run / "figures").is_symlink():
            raise InputError(
                f"{run / 'figures'} is a link; the figures of a run stay in its folder"
            )
        self._run = run
        self._old = _read_keys(run / KEYS)
        self._keys: dict[str, str] = {}

    def uri(self, file: str, key: str, draw: Callable[[], Image.Image]) -> str:
        """The small copy of a figure as a data URI; it is drawn where there is none of this key.

        Args:
            file: Of the figure, relative to the run.
            key: The hash of all that decides how it looks.
            draw: Draws it.
        """
        path = self._run / file
        small = path.with_suffix(".webp") if features.check("webp") else path
        if self._old.get(file) != key or not _is_file(path) or not _is_file(small):
            # Without their keys, figures of an interrupted run are drawn again.
            (self._run / KEYS).unlink(missing_ok=True)
            picture = draw()
            _write(path, png(picture))
            if small != path:
                _write(small, figure_bytes(picture))
        self._keys[file] = key
        return image_uri(small.read_bytes())

    def close(self) -> None:
        """Writes the keys of the figures that were asked for."""
        if self._keys and (self._keys != self._old or not (self._run / KEYS).exists()):
            atomic_write(self._run / KEYS, json.dumps(self._keys, indent=1))


def _write(path: Path, data: bytes) -> None:
    """Writes a file in place of what has its name, which may be a link."""
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _read_keys(path: Path) -> dict[str, str]:
    """The keys of kept figures; none where they cannot be read, so that all are drawn."""
    try:
        keys = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return keys if isinstance(keys, dict) else {}
