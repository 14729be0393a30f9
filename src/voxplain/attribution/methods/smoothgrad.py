"""SmoothGrad and VarGrad: mean and variance of any map over noisy copies of the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator
from torch import Tensor

from voxplain.attribution.methods.base import MaskMethod, Wrapper, inner_method
from voxplain.attribution.methods.saliency import Saliency
from voxplain.engine.context import Context
from voxplain.engine.method import MapProperties, Method, register
from voxplain.engine.randomness import GaussianNoise, NoisyCopies
from voxplain.engine.stream_io import StreamResults

ON_PATHS = (8, 16)
"""Copies and points where the inner method itself takes several and neither is stated."""


class _NoiseMethod(Wrapper):
    """A statistic of the maps of a method over noisy copies of the image.

    Attributes:
        of: The method that is summed up.
        samples: Number of copies.
        sigma: Standard deviation of the noise, as a fraction of the intensity range.
        range: The range that ``sigma`` is a fraction of.
    """

    samples: int = Field(default=25, ge=1)
    sigma: float = Field(default=0.15, gt=0)
    range: Literal["robust", "minmax"] = "robust"

    @model_validator(mode="before")
    @classmethod
    def _fewer_on_paths(cls, values: Any) -> Any:
        """Lowers the defaults where the inner method takes many points or masks of every copy.

        A path costs copies times points, so both defaults drop. A map needs its masks, so that
        with masks only the copies get fewer.
        """
        if not isinstance(values, Mapping) or "of" not in values:
            return values
        inner = inner_method(values["of"])
        if isinstance(inner, MaskMethod):
            return {"samples": ON_PATHS[0], **values, "of": inner}
        fields = type(inner).model_fields
        points = next((name for name in ("steps", "samples") if name in fields), None)
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
        """The final maps of the inner method for one copy, after its own post-steps."""
        maps = self.of.maps(results, context)
        output = self.of.conclude(maps, results.item.clean, context)
        return {layer: self.of.finish(values) for layer, values in output.maps.items()}


@register
class SmoothGrad(_NoiseMethod):
    """A map averaged over noisy copies of the image, or the mean of its squares."""

    formula = "(1/n) sum_i M(x + e_i)^power, e_i ~ N(0, (sigma range)^2)"
    reference = "Smilkov et al., 2017; squared: Hooker et al., 2019"
    name: Literal["smoothgrad"] = "smoothgrad"
    of: SerializeAsAny[Method] = Field(
        default=Saliency(), description="the inner method: name or mapping"
    )
    power: Literal[1, 2] = 1

    @property
    def key(self) -> str:
        """The label, or the names of both methods and the power."""
        power = "" if self.power == 1 else "_squared"
        return self.label or f"{self.name}{power}_{self.of.key}"

    def noise(self) -> NoisyCopies:
        sampler = GaussianNoise(self.samples, self.sigma, self.range)
        return NoisyCopies(sampler, "mean" if self.power == 1 else "mean_square")

    def properties(self) -> MapProperties:
        """Squares are positive."""
        properties = super().properties()
        return replace(properties, sign="positive") if self.power == 2 else properties


@register
class VarGrad(_NoiseMethod):
    """The variance of a map over noisy copies of the image."""

    formula = "population variance of M(x + e_i)"
    reference = "Adebayo et al., 2018"
    positive = True
    name: Literal["vargrad"] = "vargrad"

    def noise(self) -> NoisyCopies:
        return NoisyCopies(GaussianNoise(self.samples, self.sigma, self.range), "variance")
