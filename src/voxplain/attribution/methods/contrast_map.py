"""Contrast maps: any method on one target against another, in one pass instead of two."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, field_validator
from torch import Tensor

from voxplain.attribution.methods.base import Wrapper
from voxplain.engine.context import Context
from voxplain.engine.method import register
from voxplain.engine.requests import Request
from voxplain.engine.stream_io import MethodOutput
from voxplain.errors import ConfigError, VoxplainError
from voxplain.targets import Target, parse_target
from voxplain.targets.contrast import Against


@register
class ContrastMap(Wrapper):
    """Evidence for the target against another one: any method on the difference of both scores.

    For methods that are linear in the score it equals the difference of the two maps, at the cost
    of one. For other methods it does not.
    """

    formula = "M(S_a - S_b)"
    units = "that of the inner method"
    name: Literal["contrast_map"] = "contrast_map"
    against: SerializeAsAny[Target] = Field(description="a class, or a target")

    @field_validator("against", mode="before")
    @classmethod
    def _target(cls, value: Any) -> Target:
        try:
            return parse_target(value)
        except VoxplainError as error:
            raise ValueError(str(error)) from None

    def requests(self, context: Context) -> tuple[Request, ...]:
        """Those of the inner method, for the contrast.

        Raises:
            ConfigError: If the inner method has a target of its own.
        """
        requests = self.of.requests(context)
        if any(request.target is not None for request in requests):
            raise ConfigError(f"{self.of.key} has a target of its own, so nothing can contrast it")
        target = Against(other=self.against)
        return tuple(replace(request, target=target) for request in requests)

    def conclude(
        self, maps: dict[str | None, Tensor], image: Tensor, context: Context
    ) -> MethodOutput:
        return self.of.conclude(maps, image, context)

    def finish(self, values: Tensor) -> Tensor:
        """The post-steps of the inner method, then those declared here."""
        return super().finish(self.of.finish(values))
