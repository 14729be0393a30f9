"""What flags state in one word: values, parameters, methods, targets and JSON."""

from __future__ import annotations

import json
from typing import Any

import yaml

from voxplain.errors import ConfigError

_SHOWN = 60


def parsed_parameters(text: str) -> dict[str, Any]:
    """``"steps=16,layers=[enc1,enc2]"`` as a mapping; values are read as YAML.

    Raises:
        ConfigError: If a parameter has no ``=``.
    """
    mapping = {}
    for parameter in _split(text):
        name, equals, value = parameter.partition("=")
        if not equals:
            raise ConfigError(f"{parameter!r} is not name=value; write steps=16,baseline=minimum")
        mapping[name.strip()] = _value(value)
    return mapping


def parsed_declaration(text: str, flag: str) -> str | dict[str, Any]:
    """A method or metric as a flag states it: ``integrated_gradients:steps=16``, or JSON.

    Returns:
        A name, or a mapping with its parameters.
    """
    if text.lstrip().startswith("{"):
        mapping: dict[str, Any] = parsed_json(text, flag)
        return mapping
    name, _, details = text.partition(":")
    return {"name": name, **parsed_parameters(details)} if details else name


def parsed_target(text: str) -> int | str | dict[str, Any]:
    """A target as a flag states it: a class, ``kind:class``, ``kind:name=value,...`` or JSON."""
    if text.lstrip().startswith("{"):
        mapping: dict[str, Any] = parsed_json(text, "--target")
        return mapping
    kind, _, details = text.partition(":")
    if "=" in details:
        return {"kind": kind, **parsed_parameters(details)}
    return int(text) if text.isdigit() else text


def parsed_json(text: str, flag: str) -> Any:
    """JSON from a flag.

    Raises:
        ConfigError: If it is not JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{flag}: not JSON ({error.msg} at character {error.pos})") from error
    except (ValueError, RecursionError) as error:  # endless numbers, endless brackets
        raise ConfigError(f"{flag}: JSON that cannot be read ({type(error).__name__})") from error


def parsed_values(text: str) -> Any:
    """One value, or a list of comma-separated ones."""
    values = [_value(value) for value in text.split(",")]
    return values[0] if len(values) == 1 else values


def _value(text: str) -> Any:
    """A value as YAML reads it.

    Raises:
        ConfigError: If it is none.
    """
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
        raise ConfigError(f"{shown!r} is no value; write a number, a word or [a, b]") from error


def _split(text: str) -> list[str]:
    """The text between commas that stand outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [text for text in parts if text.strip()]
