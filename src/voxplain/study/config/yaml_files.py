"""Study files: YAML or JSON into plain mappings, with errors that name the line."""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from voxplain.errors import ConfigError


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file.

    Raises:
        ConfigError: If the file is missing, is neither, repeats a key, or holds no mapping.
    """
    if not path.is_file():
        what = "is a folder, not a study file" if path.is_dir() else "there is no such study file"
        raise ConfigError(f"{path}: {what}")
    size = path.stat().st_size
    if size > LARGEST:
        raise ConfigError(f"{path.name}: {size:,} bytes, and a study has {LARGEST:,} at most")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name}: not a text file; a study is YAML or JSON") from error
    return _checked(_parsed(text, path), path.name)


def _parsed(text: str, path: Path) -> Any:
    try:
        if path.suffix.lower() == ".json":
            return json.loads(text)
        return yaml.load(text, Loader=_UniqueKeys)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path.name}, line {error.lineno}: {error.msg}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{path.name}, line {line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path.name}: not YAML ({type(error).__name__})") from error
    except RecursionError as error:
        raise ConfigError(f"{path.name}: nested too deep for a study") from error
    except (ValueError, TypeError, OverflowError) as error:  # impossible dates, endless numbers
        raise ConfigError(f"{path.name}: a value that cannot be read ({error})") from error


def _checked(parsed: Any, name: str) -> dict[str, Any]:
    if not isinstance(parsed, dict):
        kind = "nothing" if parsed is None else f"a {type(parsed).__name__}"
        raise ConfigError(f"{name}: a study is a mapping with cases, models, ...; found {kind}")
    _require_bounded(parsed, name)
    return {str(key): value for key, value in parsed.items()}


LARGEST = 50_000_000
"""Bytes of a study file."""

MOST_ENTRIES = 1_000_000
"""Values in a study file, each as often as aliases repeat it."""


def _require_bounded(parsed: Any, name: str) -> None:
    """Refuses a file whose aliases repeat its values without end, or stand inside themselves."""
    sizes: dict[int, int | None] = {}

    def size(value: Any) -> int:
        if not isinstance(value, (dict, list, tuple, set)):
            return 1
        if id(value) not in sizes:
            sizes[id(value)] = None
            inner = [*value, *value.values()] if isinstance(value, dict) else [*value]
            sizes[id(value)] = 1 + sum(map(size, inner))
        known = sizes[id(value)]
        if known is None:
            raise ConfigError(f"{name}: an alias stands inside of what it is an alias of")
        return known

    if size(parsed) > MOST_ENTRIES:
        raise ConfigError(f"{name}: more than {MOST_ENTRIES:,} values, its aliases filled in")


class _UniqueKeys(yaml.SafeLoader):
    """A safe YAML loader that refuses a repeated key, where others overwrite it silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a list or mapping stands as a key", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)
