"""Methods made of another method: what they hand on to it."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SerializeAsAny, field_validator
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.method import Method, parse_method
from voxplain.engine.randomness import NoisyCopies
from voxplain.engine.requests import Request
from voxplain.engine.stream_io import StreamResults
from voxplain.errors import VoxplainError


class Around(Method):
    """A method around another one; what a subclass does not change is that of the inner method.

    Attributes:
        of: The inner method.
    """

    of: SerializeAsAny[Method] = Field(description="the inner method: name or mapping")

    @field_validator("of", mode="before")
    @classmethod
    def _method(cls, value: Any) -> Method:
        return inner_method(value)

    def requests(self, context: Context) -> tuple[Request, ...]:
        """Those of the inner method."""
        return self.of.requests(context)

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """Those of the inner method."""
        return self.of.maps(results, context)

    def noise(self) -> NoisyCopies | None:
        """That of the inner method."""
        return self.of.noise()

    @property
    def key(self) -> str:
        """The label, or both names."""
        return self.label or f"{self.name}_{self.of.key}"

    @property
    def baseline_of(self) -> Any:
        """That of the inner method."""
        return self.of.baseline_of


def inner_method(value: Any) -> Method:
    """A method from a name or a mapping, with errors as pydantic wants them."""
    try:
        return parse_method(value)
    except VoxplainError as error:
        raise ValueError(str(error)) from None
