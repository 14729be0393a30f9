"""XRAI: any map, summed up over segments of the image."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, field_validator
from torch import Tensor

from voxplain.attribution.around import Around
from voxplain.attribution.gradient import IntegratedGradientsBlackWhite
from voxplain.attribution.layer import LayerMethod
from voxplain.attribution.method import (
    Conclusion,
    Method,
    Resampling,
    register,
)
from voxplain.attribution.ranking import Mode, Ranked, rank_segments
from voxplain.attribution.scene import Scene
from voxplain.errors import ConfigError
from voxplain.regions import Segments, scales

_LISTED = 100


@register
class Xrai(Around):
    """Which regions of the image matter most: a map averaged over segments, the best first.

    Candidates are all segments of six scales, found on the image without noise. The largest value
    over the channels counts; take the absolute values of the inner map where signs should not.

    Attributes:
        of: The method whose map is summed up.
        mode: ``full`` ranks by what a segment adds, ``fast`` by the mean of whole segments.
        minimum: Least part of the image that a segment adds.
        segments: ``(n, *spatial)`` in place of the six scales: boolean masks, or label maps.
    """

    family = "region"
    formula = "on each segment the mean of M over the voxels that it adds, largest mean first"
    reference = "Kapishnikov et al., 2019"
    units: ClassVar[str] = "mean of the inner map per voxel"
    resampling: ClassVar[Resampling] = "value"
    complete: ClassVar[bool] = False

    name: Literal["xrai"] = "xrai"
    of: SerializeAsAny[Method] = Field(
        default=IntegratedGradientsBlackWhite(), description="the method that is summed up"
    )
    mode: Mode = "full"
    minimum: float = Field(
        default=0.001, gt=0, lt=1, description="least part of the image that a segment adds"
    )
    segments: Any = Field(
        default=None, description="masks or label maps (n, *spatial); absent: six scales"
    )

    @field_validator("of")
    @classmethod
    def _on_the_image(cls, value: Method) -> Method:
        if isinstance(getattr(value, "of", value), LayerMethod):
            raise ValueError(f"{value.key} is a map of a layer; take one of the image, as CAMs are")
        return value

    def conclude(self, maps: dict[str | None, Tensor], image: Tensor, scene: Scene) -> Conclusion:
        """The regions of the inner map, once it is complete."""
        inner = self.of.conclude(maps, image, scene)
        if set(inner.maps) != {None}:
            raise ConfigError(f"xrai needs one map of the image, and {self.of.key} gives others")
        ranked = self.ranked(self.of.finish(inner.maps[None]), image, scene.spacing)
        found = {**inner.findings, "regions": ranked.listed(_LISTED)}
        return Conclusion({None: ranked.map[None].to(image)}, found)

    def ranked(self, map: Tensor, image: Tensor, spacing: tuple[float, ...] | None) -> Ranked:
        """The regions of a map ``(C, *spatial)`` of an image, in their order.

        Raises:
            ConfigError: If the given segments do not lie on the image.
        """
        segments = self._candidates(image, spacing)
        largest = map.detach().amax(dim=0)
        return rank_segments(largest, segments, round(self.minimum * largest.numel()), self.mode)

    def _candidates(self, image: Tensor, spacing: tuple[float, ...] | None) -> Segments:
        if self.segments is None:
            return scales(image, spacing)
        given = Segments.given(self.segments)
        if given.cells.shape != image.shape[1:]:
            raise ConfigError(
                f"segments of shape {tuple(given.cells.shape)} do not lie on an image of shape "
                f"{tuple(image.shape[1:])}"
            )
        return given

    @property
    def key(self) -> str:
        """The label, or the name with that of the inner method where it is not the default."""
        inner = "" if self.of == IntegratedGradientsBlackWhite() else f"_{self.of.key}"
        return self.label or f"{self.name}{inner}"

    @property
    def sign(self) -> Literal["signed", "absolute", "positive"]:
        """That of the inner method."""
        return super().sign if self.of.sign == "signed" else self.of.sign
