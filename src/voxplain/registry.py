"""Registries of methods and metrics: classes by name, from this package and from plug-ins."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from voxplain.errors import ConfigError, VoxplainWarning, nearest

T = TypeVar("T", bound=BaseModel)


class Registry(Generic[T]):
    """Classes by name, with plug-ins from an entry-point group.

    Plug-ins are loaded when the names are listed, or at the first name that is not registered yet.
    A plug-in that cannot be loaded causes a warning, and the others are loaded all the same.

    Args:
        kind: Singular noun for what is registered, used in errors.
        group: Entry-point group of plug-ins; loading an entry point registers its classes.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self._group = group
        self._entries: dict[str, type[T]] = {}
        self._plugins_loaded = False
        self._loading = threading.RLock()

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
        """The class registered under a name.

        Raises:
            ConfigError: If there is none; with the nearest names.
        """
        if name not in self._entries:
            self._load_plugins()
        if name not in self._entries:
            raise ConfigError(f"unknown {self.kind} {name!r}; {nearest(name, self._entries)}")
        return self._entries[name]

    def parse(self, spec: str | Mapping[str, Any] | T, where: str = "") -> T:
        """An instance of a registered class, from what people write.

        Args:
            spec: A name, a mapping with ``name`` and parameters, or an instance, which is returned.
            where: Path of the entry in a study, for errors.

        Raises:
            ConfigError: With the nearest names or the exact path of the parameter.
        """
        if isinstance(spec, BaseModel):
            return spec
        try:
            if not isinstance(spec, (str, Mapping)):
                raise ConfigError(f"a {self.kind} is a name, or a mapping with one, not {spec!r}")
            values = {"name": spec} if isinstance(spec, str) else dict(spec)
            if "name" not in values:
                raise ConfigError(f"a {self.kind} needs a name")
            name = str(values["name"])
            entry = self.get(name)
            try:
                return entry.model_validate(values)
            except ValidationError as error:
                raise ConfigError(_sentence(error, name, entry)) from None
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}" if where else str(error)) from None

    def __iter__(self) -> Iterator[str]:
        self._load_plugins()
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        self._load_plugins()
        return len(self._entries)

    def _load_plugins(self) -> None:
        with self._loading:
            if self._plugins_loaded:
                return
            self._plugins_loaded = True
            for point in entry_points(group=self._group):
                try:
                    point.load()
                except Exception as error:  # foreign code may raise anything
                    text = _left_out(point, self.kind, error)
                    warnings.warn(text, VoxplainWarning, stacklevel=3)


def _sentence(error: ValidationError, name: str, entry: type[BaseModel]) -> str:
    first = error.errors()[0]
    path = ".".join([name, *map(str, first["loc"])])
    if first["type"] == "extra_forbidden":
        parameters = [info.alias or field for field, info in entry.model_fields.items()]
        return f"{path}: unknown parameter; {nearest(str(first['loc'][-1]), parameters)}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{path}: {message[0].lower()}{message[1:]}"


def _left_out(point: EntryPoint, kind: str, error: Exception) -> str:
    package = point.dist.name if point.dist else point.value
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"the {kind} {point.name!r} of the package {package} is left out, for it fails: {reason}"
