"""The one place where methods and metrics are found by name."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from voxplain.errors import ConfigError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by name, with plug-ins from an entry-point group.

    Args:
        kind: What is registered, in the singular, as errors name it.
        group: The entry-point group of third parties, read at the first lookup.
    """

    def __init__(self, kind: str, group: str) -> None:
        self._kind = kind
        self._group = group
        self._entries: dict[str, type[T]] = {}
        self._plugins_loaded = False

    def add(self, name: str, entry: type[T]) -> type[T]:
        """Registers a class under its name.

        Raises:
            ConfigError: If another class already has that name.
        """
        if self._entries.get(name, entry) is not entry:
            raise ConfigError(f"two {self._kind}s are named {name!r}; rename one of them")
        self._entries[name] = entry
        return entry

    def get(self, name: str) -> type[T]:
        """The class of that name.

        Raises:
            ConfigError: With the nearest names, if there is none.
        """
        self._load_plugins()
        if name not in self._entries:
            raise ConfigError(f"unknown {self._kind} {name!r}; {nearest(name, self._entries)}")
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
            point.load()
