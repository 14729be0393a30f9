"""Contrast maps: any method on one target against another, in one pass instead of two."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, field_validator
from torch import Tensor

from voxplain.attribution.methods.wrapper import Around
from voxplain.engine.context import Context
from voxplain.engine.method import Resampling, register
from voxplain.engine.network_layers import Assembly
from voxplain.engine.requests import Request
from voxplain.engine.stream_io import MethodOutput
from voxplain.errors import ConfigError, VoxplainError
from voxplain.targets import Target, parse_target
from voxplain.targets.contrast import Against


@register
class ContrastMap(Around):
    """What speaks for the target rather than for another one: any method on their difference.

    For methods that are linear in the score it is the difference of the two maps, at the cost of
    one; for the others it is a map of its own.
    """

    family = "wrapper"
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
        """Those of the method, about the contrast.

        Raises:
            ConfigError: If the method explains a target of its own.
        """
        asked = self.of.requests(context)
        if any(request.target is not None for request in asked):
            raise ConfigError(f"{self.of.key} has a target of its own, so nothing can contrast it")
        target = Against(other=self.against)
        return tuple(replace(request, target=target) for request in asked)

    def conclude(
        self, maps: dict[str | None, Tensor], image: Tensor, context: Context
    ) -> MethodOutput:
        """As the method does."""
        return self.of.conclude(maps, image, context)

    def finish(self, map: Tensor) -> Tensor:
        """The post-steps of the method, then those declared here."""
        return super().finish(self.of.finish(map))

    @property
    def resampling(self) -> Resampling:  # type: ignore[override]
        """That of the method."""
        return self.of.resampling

    @property
    def complete(self) -> bool:  # type: ignore[override]
        """As the method is."""
        return self.of.complete

    @property
    def exact_in_windows(self) -> bool:  # type: ignore[override]
        """As the method is."""
        return self.of.exact_in_windows

    @property
    def windows(self) -> Assembly:
        """How the windows of a layer method come together."""
        return getattr(self.of, "windows", "sum")

    @property
    def sign(self) -> Literal["signed", "absolute", "positive"]:
        """That of the method, unless absolute values are taken here."""
        own = super().sign
        return self.of.sign if own == "signed" else own
