"""Target objects from what studies and callers write."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Annotated, Any, SupportsIndex

from pydantic import Field, TypeAdapter, ValidationError

from voxplain.errors import ConfigError, nearest
from voxplain.targets.base import Target
from voxplain.targets.contrast import Contrast, OneTarget
from voxplain.targets.scores import Label

AnyTarget = Annotated[OneTarget | Contrast, Field(discriminator="kind")]
"""A target of a study, discriminated by ``kind``."""

_ADAPTER: TypeAdapter[Any] = TypeAdapter(AnyTarget)
KINDS = (
    "label",
    "class_score",
    "pixelwise",
    "threshold",
    "region",
    "contrast",
    "error_region",
    "volume",
    "unit",
    "intensity",
    "reconstruction_error",
)


def parse_target(target: SupportsIndex | str | Mapping[str, Any] | Target) -> Target:
    """A target object from a number, a string or a mapping.

    Args:
        target: A target; a class number, of Python, NumPy or torch; ``"kind"`` or
            ``"kind:label"``; or a mapping with a ``kind``.

    Raises:
        ConfigError: If the kind is unknown (with the nearest ones) or a parameter does not fit
            (with its path).
    """
    if isinstance(target, Target):
        return target
    number = _class_number(target)
    if number is not None:
        return Label(label=number)
    if isinstance(target, str):
        if target.lstrip("-").isdigit():
            return Label(label=int(target))
        kind, _, label = target.partition(":")
        target = {"kind": kind, "label": int(label) if label.isdigit() else label}
        target = {key: value for key, value in target.items() if value != ""}
    if not isinstance(target, Mapping):
        raise ConfigError(
            f"a target is a class number, a kind such as pixelwise:1, or a mapping, not {target!r}"
        )
    if target.get("kind") not in KINDS:
        raise ConfigError(
            f"unknown target {target.get('kind')!r}; {nearest(str(target.get('kind')), KINDS)}"
        )
    try:
        parsed: Target = _ADAPTER.validate_python(target)
    except ValidationError as error:
        raise ConfigError(_sentence(error, target)) from None
    return parsed


def _class_number(target: object) -> int | None:
    """The number behind integers of Python, NumPy and torch; None for anything else."""
    if isinstance(target, bool) or not hasattr(target, "__index__"):
        return None
    try:
        return operator.index(target)
    except (TypeError, ValueError):  # arrays and tensors of several numbers, or of fractions
        return None


def _sentence(error: ValidationError, target: Mapping[str, Any]) -> str:
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"target.{path}: unknown parameter of {target['kind']}"
    return f"target.{path}: {first['msg']}"
