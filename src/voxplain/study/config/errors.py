"""The mistakes in a study file, one sentence each, with its exact path."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from voxplain.errors import nearest

# Errors whose text is a sentence of voxplain, which is given as it is.
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
    mistakes = error.errors()
    causes = [mistake for mistake in mistakes if not _follows(mistake, mistakes)]
    return "\n".join(_sentence(mistake, model, origin) for mistake in causes)


def dotted(location: tuple[int | str, ...]) -> str:
    """``("methods", 1, "steps")`` as ``methods[1].steps``."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return "".join(steps).lstrip(".")


def _follows(mistake: ErrorDetails, mistakes: list[ErrorDetails]) -> bool:
    """Whether a mistake only follows from another one.

    A list whose only entry is wrong is not also too short, and a name that is missing because it
    is mistyped is one mistake, not two.
    """
    place = mistake["loc"]
    if mistake["type"] == "too_short":
        return any(
            len(other["loc"]) > len(place) and other["loc"][: len(place)] == place
            for other in mistakes
        )
    if mistake["type"] != "missing":
        return False
    mistyped = [
        str(other["loc"][-1])
        for other in mistakes
        if other["type"] == "extra_forbidden" and other["loc"][:-1] == place[:-1]
    ]
    return bool(difflib.get_close_matches(str(place[-1]), mistyped, cutoff=0.5))


def _sentence(mistake: ErrorDetails, model: type[BaseModel], origin: str) -> str:
    path, reason = dotted(mistake["loc"]), _reason(mistake, model)
    inner = _INNER_PATH.match(reason) if mistake["type"] == "voxplain" else None
    if inner:
        path, reason = f"{path}.{inner[1]}", reason[inner.end() :]
    return ": ".join(filter(None, (origin, path, reason)))


def _reason(mistake: ErrorDetails, model: type[BaseModel]) -> str:
    kind, context = mistake["type"], mistake.get("ctx", {})
    if kind == "extra_forbidden":
        *parents, name = mistake["loc"]
        return f"unknown parameter; {nearest(str(name), _fields(model, tuple(parents)))}"
    if kind == "missing":
        return "this is required"
    if kind == "union_tag_invalid":
        tags = [tag.strip("' ") for tag in context["expected_tags"].split(",")]
        field = context["discriminator"].strip("'")
        return f"unknown {field} {context['tag']!r}; {nearest(context['tag'], tags)}"
    if kind == "union_tag_not_found":
        return f"needs a {context['discriminator']}, which says what it is"
    if kind in _OUR_OWN:
        return mistake["msg"].removeprefix("Value error, ")
    value = repr(mistake["input"])
    message = mistake["msg"].removeprefix("Input ")
    return f"{value if len(value) <= 60 else 'this'} {message}"


def _fields(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The fields of the model at a location; empty where it cannot be followed."""
    annotation: Any = model
    for step in location:
        annotation = next(_entered(annotation, step), None)
    models = [kind for kind in _flat(annotation) if isinstance(kind, type)]
    fields = (name for kind in models if issubclass(kind, BaseModel) for name in _by_alias(kind))
    return [*dict.fromkeys(fields)]


def _by_alias(model: type[BaseModel]) -> dict[str, Any]:
    """The annotations of the fields under the names that a file uses."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _entered(annotation: Any, step: int | str) -> Iterator[Any]:
    """The annotations one step further into a location: an entry, a field, or a kind of a union."""
    for kind in _flat(annotation):
        if isinstance(step, int) and get_args(kind):
            yield get_args(kind)[0]
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            if step in _by_alias(kind):
                yield _by_alias(kind)[str(step)]
            elif step in _tags(kind):
                yield kind


def _flat(annotation: Any) -> Iterator[Any]:
    """The members of a union, without the annotations around them."""
    if get_origin(annotation) is Annotated:
        yield from _flat(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _flat(member)
    else:
        yield annotation


def _tags(kind: type[BaseModel]) -> list[Any]:
    """The values that select this member of a discriminated union."""
    return [
        value
        for name in ("kind", "name")
        if name in kind.model_fields
        for value in get_args(kind.model_fields[name].annotation)
    ]
