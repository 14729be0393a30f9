"""The one place where methods and metrics are found by name."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from voxplain.errors import ConfigError, VoxplainWarning, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by name, with plug-ins from an entry-point group.

    Plug-ins are loaded when everything is listed, or a name is asked for that is not there yet.
    One that cannot be loaded is a warning, and leaves the others as they are.

    Args:
        kind: What is registered, in the singular, as errors name it.
        group: The entry-point group of third parties; loading a point registers its classes.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self._group = group
        self._entries: dict[str, type[T]] = {}
        self._plugins_loaded = False

    def add(self, name: str, entry: type[T]) -> type[T]:
        """Registers a class under its name.

        Raises:
            ConfigError: If another class already has that name.
        """
        if self._entries.get(name, entry) is not entry:
            raise ConfigError(f"two {self.kind}s are named {name!r}; rename one of them")
        self._entries[name] = entry
        return entry

    def get(self, name: str) -> type[T]:
        """The class of that name.

        Raises:
            ConfigError: With the nearest names, if there is none.
        """
        if name not in self._entries:
            self._load_plugins()
        if name not in self._entries:
            raise ConfigError(f"unknown {self.kind} {name!r}; {nearest(name, self._entries)}")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._load_plugins()
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        self._load_plugins()
        return len(self._entries)

    def _load_plugins(self) -> None:
        if self._plugins_loaded:
            return
        self._plugins_loaded = True
        for point in entry_points(group=self._group):
            try:
                point.load()
            except Exception as error:  # whatever the code of others may raise
                warnings.warn(_missing(point, self.kind, error), VoxplainWarning, stacklevel=3)


def _missing(point: EntryPoint, kind: str, error: Exception) -> str:
    package = point.dist.name if point.dist else point.value
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"the {kind} {point.name!r} of the package {package} is left out, for it fails: {reason}"
