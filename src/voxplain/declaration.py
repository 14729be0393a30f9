"""The common base of methods and metrics: frozen models that studies refer to by name."""

from __future__ import annotations

import textwrap
from abc import ABC
from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Declaration(BaseModel, ABC):
    """A method or metric as a study names it; its fields are its parameters.

    The first line of the docstring of a subclass is its meaning, as reports and the command line
    show it.

    Attributes:
        family: Name of the family it is listed under.
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
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().splitlines()[0]

    @classmethod
    def details(cls) -> str:
        """The rest of the docstring, without the list of parameters."""
        rest = textwrap.dedent((cls.__doc__ or "").partition("\n")[2])
        return rest.split("Attributes:")[0].strip()

    @classmethod
    def title(cls) -> str:
        """The name of the class in the registry."""
        return str(cls.model_fields["name"].default)
