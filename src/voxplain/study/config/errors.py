"""What is wrong with a study, one sentence per mistake, each with its exact path."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from voxplain.errors import nearest

# Shown as they are: they are our own sentences.
_OUR_OWN = ("value_error", "assertion_error", "voxplain")

# A sentence that starts with the path of a parameter, such as "smoothgrad.of: ...".
_INNER_PATH = re.compile(r"(\w+(?:\.\w+)+): ")


def explain_validation(error: ValidationError, model: type[BaseModel], origin: str) -> str:
    """Every mistake of a validation as ``origin: path: what is wrong``, one per line.

    Args:
        error: What pydantic raised.
        model: The model that was validated; its fields are the names to suggest.
        origin: Where the text came from, such as ``study.yaml``.
    """
    found = error.errors()
    own = [details for details in found if not _follows(details, found)]
    return "\n".join(_sentence(details, model, origin) for details in own)


def dotted(location: tuple[int | str, ...]) -> str:
    """``("methods", 1, "steps")`` as ``methods[1].steps``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).lstrip(".")


def _follows(details: ErrorDetails, found: list[ErrorDetails]) -> bool:
    """Whether a mistake is only the echo of another one.

    A list whose only entry is wrong is not also too short, and a name that is missing because it
    is mistyped is one mistake, not two.
    """
    place = details["loc"]
    if details["type"] == "too_short":
        return any(
            len(other["loc"]) > len(place) and other["loc"][: len(place)] == place
            for other in found
        )
    if details["type"] != "missing":
        return False
    mistyped = [
        str(other["loc"][-1])
        for other in found
        if other["type"] == "extra_forbidden" and other["loc"][:-1] == place[:-1]
    ]
    return bool(difflib.get_close_matches(str(place[-1]), mistyped, cutoff=0.5))


def _sentence(details: ErrorDetails, model: type[BaseModel], origin: str) -> str:
    path, reason = dotted(details["loc"]), _reason(details, model)
    inner = _INNER_PATH.match(reason) if details["type"] == "voxplain" else None
    if inner:
        path, reason = f"{path}.{inner[1]}", reason[inner.end() :]
    return ": ".join(part for part in (origin, path, reason) if part)


def _reason(details: ErrorDetails, model: type[BaseModel]) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        *parents, name = details["loc"]
        return f"unknown parameter; {nearest(str(name), _fields(model, tuple(parents)))}"
    if kind == "missing":
        return "this is required"
    if kind == "union_tag_invalid":
        known = [tag.strip("' ") for tag in context["expected_tags"].split(",")]
        field = context["discriminator"].strip("'")
        return f"unknown {field} {context['tag']!r}; {nearest(context['tag'], known)}"
    if kind == "union_tag_not_found":
        return f"needs a {context['discriminator']}, which says what it is"
    if kind in _OUR_OWN:
        return details["msg"].removeprefix("Value error, ")
    shown = repr(details["input"])
    message = details["msg"].removeprefix("Input ")
    return f"{shown if len(shown) <= 60 else 'this'} {message}"


def _fields(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The fields of the model at a location; empty where it cannot be followed."""
    found: Any = model
    for part in location:
        found = next(_step(found, part), None)
    models = [kind for kind in _flat(found) if isinstance(kind, type)]
    return [name for kind in models if issubclass(kind, BaseModel) for name in _by_alias(kind)]


def _by_alias(model: type[BaseModel]) -> dict[str, Any]:
    """The annotation of each field under the name a file uses."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _step(annotation: Any, part: int | str) -> Iterator[Any]:
    for kind in _flat(annotation):
        if isinstance(part, int) and get_args(kind):
            yield get_args(kind)[0]
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            if part in _by_alias(kind):
                yield _by_alias(kind)[str(part)]
            elif part in _tags(kind):
                yield kind


def _flat(annotation: Any) -> Iterator[Any]:
    """The members of a union, and what an annotation is about."""
    if get_origin(annotation) is Annotated:
        yield from _flat(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _flat(member)
    else:
        yield annotation


def _tags(kind: type[BaseModel]) -> list[Any]:
    """The values by which a discriminated union knows this member."""
    return [
        value
        for name in ("kind", "name")
        if name in kind.model_fields
        for value in get_args(kind.model_fields[name].annotation)
    ]
