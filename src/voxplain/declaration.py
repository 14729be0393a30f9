"""What methods and metrics have in common: frozen models that are found by name."""

from __future__ import annotations

import textwrap
from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from voxplain.errors import ConfigError, nearest
from voxplain.registry import Registry


class Declaration(BaseModel, ABC):
    """Something that studies name; its fields are its parameters.

    The first line of the docstring of a subclass is its meaning in plain words, as reports and the
    command line show it.

    Attributes:
        family: The chapter it belongs to.
        reference: The paper, in short.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, populate_by_name=True
    )

    family: ClassVar[str]
    reference: ClassVar[str] = ""

    name: str

    @classmethod
    def meaning(cls) -> str:
        """One line in plain words."""
        return (cls.__doc__ or "").strip().splitlines()[0]

    @classmethod
    def details(cls) -> str:
        """What the docstring says beyond that, without the list of parameters."""
        rest = textwrap.dedent((cls.__doc__ or "").partition("\n")[2])
        return rest.split("Attributes:")[0].strip()

    @classmethod
    def title(cls) -> str:
        """The registry name of the class."""
        return str(cls.model_fields["name"].default)


D = TypeVar("D", bound="Declaration")


def parsed(registry: Registry[D], spec: str | Mapping[str, Any], where: str = "") -> D:
    """A declaration from what people write.

    Args:
        registry: Where names are looked up.
        spec: A name, or a mapping with ``name`` and parameters.
        where: Path of the entry in a study, for errors.

    Raises:
        ConfigError: With the nearest names or the exact path of the parameter.
    """
    values = {"name": spec} if isinstance(spec, str) else dict(spec)
    try:
        if "name" not in values:
            raise ConfigError(f"a {registry.kind} needs a name")
        chosen = registry.get(str(values["name"]))
        try:
            return chosen.model_validate(values)
        except ValidationError as error:
            raise ConfigError(_sentence(error, chosen)) from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from None


def _sentence(error: ValidationError, chosen: type[Declaration]) -> str:
    first = error.errors()[0]
    path = ".".join([chosen.title(), *(str(part) for part in first["loc"])])
    if first["type"] == "extra_forbidden":
        known = [info.alias or field for field, info in chosen.model_fields.items()]
        return f"{path}: unknown parameter; {nearest(str(first['loc'][-1]), known)}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{path}: {message[0].lower()}{message[1:]}"
