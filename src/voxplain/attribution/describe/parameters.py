"""The parameters of a method or metric in words, for the command line and the documentation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from voxplain.engine.method import Method

_EXTENT = ("integer", "number", "string")
_SHARED = ("label", "channels", "abs")
_DEFAULT_MEANINGS = {
    "baseline": "what the image is compared with",
    "cells": "cells of a mask along the shortest axis",
    "eps": "differences below this one take the gradient instead; absent: by precision",
    "fill": "what removed parts become",
    "keep": "probability that a cell or a region is kept",
    "layer": "path; absent: the last feature layer",
    "power": "1 for the mean of the maps, 2 for the mean of their squares",
    "precision": "of the passes; auto: float64 where the network has norms of the data",
    "quadrature": "how points on the path are placed and weighted",
    "references": "upper bound on the other images that are used",
    "regions": "how the image is divided",
    "relu": "keep positive evidence only",
    "samples": "number of random draws",
    "sigma": "noise, as a fraction of the intensity range",
    "steps": "number of points on the path, or of steps of the search",
    "sum_channels": "one map for all channels of the layer",
}
"""Meanings of parameters that a method does not describe itself."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a method or metric.

    Attributes:
        name: As studies write it.
        kind: Type or choices: ``integer``, ``keep | sum``, ``size``.
        default: As studies write it; ``-`` if it may be absent.
        meaning: In words; may be empty.
        shared: Whether every method has it, with the same meaning.
    """

    name: str
    kind: str
    default: str
    meaning: str
    shared: bool


def parameters(method: type[BaseModel]) -> list[Parameter]:
    """The parameters of a method or metric without its name, in the order of declaration."""
    schema = method.model_json_schema()
    properties, models = schema["properties"], schema.get("$defs", {})
    documented = _documented(method)
    fields = {info.alias or name: (name, info) for name, info in method.model_fields.items()}
    return [
        Parameter(
            alias,
            _kind(properties[alias], models),
            _default(info),
            info.description or documented.get(name) or _DEFAULT_MEANINGS.get(name, ""),
            alias in _SHARED,
        )
        for alias, (name, info) in fields.items()
        if alias != "name"
    ]


def _documented(method: type[BaseModel]) -> dict[str, str]:
    """Meanings of fields from the docstrings of a class and its bases, its own first."""
    meanings: dict[str, str] = {}
    for cls in method.__mro__:
        if issubclass(cls, BaseModel) and cls is not BaseModel:
            meanings = {**_attributes(cls.__doc__ or ""), **meanings}
    return meanings


def _attributes(text: str) -> dict[str, str]:
    """The entries below ``Attributes:`` of a Google docstring."""
    entries: dict[str, str] = {}
    name = ""
    lines = text.partition("Attributes:\n")[2].splitlines()
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    for line in lines:
        if not line.strip():
            break
        if len(line) - len(line.lstrip()) == margin:
            name, _, rest = line.strip().partition(": ")
            entries[name] = rest
        else:
            entries[name] += " " + line.strip()
    return {key: _clause(value) for key, value in entries.items()}


def _clause(sentence: str) -> str:
    """A sentence in the form of field descriptions: lower case, without full stop."""
    text = sentence.removesuffix(".").replace("``", "`")
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def _kind(schema: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    """Type or choices in words; models of a union by their ``kind``."""
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            members = [member for member in schema[key] if member.get("type") != "null"]
            return _union(members, models)
    if schema.get("type") == "array":
        inner = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of {_kind(inner, models)}" if inner else "list"
    if "$ref" in schema:
        name = str(schema["$ref"]).rsplit("/", 1)[-1]
        kind = models.get(name, {}).get("properties", {}).get("kind", {})
        return str(kind.get("const", name.lower()))
    return str(schema.get("type", "any"))


def _union(members: list[dict[str, Any]], models: Mapping[str, Any]) -> str:
    """The members, each once; ``size`` for the long union of an extent."""
    words = list(dict.fromkeys(_kind(member, models) for member in members))
    if set(_EXTENT) <= set(words):
        return "size"
    return " | ".join(words)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    return _written(info.get_default(call_default_factory=True))


def _written(value: Any) -> str:
    """A value as a study would write it; a model by its kind and parameters."""
    if isinstance(value, BaseModel):
        return _written_model(value)
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return value
    return json.dumps(value, default=str) if value != () else "-"


def _written_model(value: BaseModel) -> str:
    """``blur`` or ``supervoxels, count 100``: the kind, then the parameters that are set."""
    info = type(value).model_fields
    fields = {info[name].alias or name: parameter for name, parameter in value}
    kind = fields.pop("kind", None) or fields.pop("name", type(value).__name__.lower())
    if isinstance(value, Method):
        return str(kind)
    settings = {name: setting for name, setting in fields.items() if setting is not None}
    return ", ".join(
        [str(kind), *(f"{name} {_written(value)}" for name, value in settings.items())]
    )
