"""SmoothGrad and its kin: any method, summed up over noisy copies of the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator
from torch import Tensor

from voxplain.attribution.methods.mask_method import MaskMethod
from voxplain.attribution.methods.wrapper import Around, inner_method
from voxplain.engine.context import Context
from voxplain.engine.method import Method, register
from voxplain.engine.randomness import GaussianNoise, NoisyCopies
from voxplain.engine.stream_io import StreamResults

ON_PATHS = (8, 16)
"""Copies and points where the inner method itself takes several and neither is stated."""


class _OverNoise(Around):
    """A method on noisy copies.

    Attributes:
        of: The method that is summed up.
        samples: Number of copies.
        sigma: Standard deviation of the noise, as a fraction of the intensity range.
        range: The range that ``sigma`` is a fraction of.
    """

    family: ClassVar[str] = "wrapper"

    samples: int = Field(default=25, ge=1)
    sigma: float = Field(default=0.15, gt=0)
    range: Literal["robust", "minmax"] = "robust"

    @model_validator(mode="before")
    @classmethod
    def _fewer_on_paths(cls, values: Any) -> Any:
        """Methods of many points cost copies times points, so both defaults drop.

        Masks are as many as a map needs, so that there only the copies get fewer.
        """
        if not isinstance(values, Mapping) or "of" not in values:
            return values
        inner = inner_method(values["of"])
        if isinstance(inner, MaskMethod):
            return {"samples": ON_PATHS[0], **values, "of": inner}
        points = next((name for name in ("steps", "samples") if hasattr(inner, name)), None)
        if points is None or inner.noise() is not None:
            return {**values, "of": inner}
        if points not in inner.model_fields_set:
            inner = inner.model_copy(update={points: ON_PATHS[1]})
        return {"samples": ON_PATHS[0], **values, "of": inner}

    @field_validator("of")
    @classmethod
    def _no_nesting(cls, value: Method) -> Method:
        if value.noise() is not None:
            raise ValueError(f"{value.name} cannot be summed up over noise twice")
        return value

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """Those of the method itself, after its own post-steps."""
        found = self.of.maps(results, context)
        found = self.of.conclude(found, results.item.clean, context).maps
        return {layer: self.of.finish(map) for layer, map in found.items()}


@register
class SmoothGrad(_OverNoise):
    """A map averaged over noisy copies of the image, or the mean of its squares."""

    formula = "(1/n) sum_i M(x + e_i)^power, e_i ~ N(0, (sigma range)^2)"
    reference = "Smilkov et al., 2017; squared: Hooker et al., 2019"
    name: Literal["smoothgrad"] = "smoothgrad"
    power: Literal[1, 2] = 1

    def noise(self) -> NoisyCopies:
        """Mean, or mean of squares."""
        sampler = GaussianNoise(self.samples, self.sigma, self.range)
        return NoisyCopies(sampler, "mean" if self.power == 1 else "mean_square")

    @property
    def key(self) -> str:
        """The label, or names and power."""
        power = "" if self.power == 1 else "_squared"
        return self.label or f"{self.name}{power}_{self.of.key}"

    @property
    def sign(self) -> Literal["signed", "absolute", "positive"]:
        """Squares are positive."""
        return "positive" if self.power == 2 else super().sign


@register
class VarGrad(_OverNoise):
    """How much a map varies over noisy copies of the image."""

    formula = "population variance of M(x + e_i)"
    reference = "Adebayo et al., 2018"
    positive = True
    name: Literal["vargrad"] = "vargrad"

    def noise(self) -> NoisyCopies:
        """Variance."""
        return NoisyCopies(GaussianNoise(self.samples, self.sigma, self.range), "variance")
