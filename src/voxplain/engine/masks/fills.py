"""Fills: the values of removed voxels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from scipy import ndimage
from torch import Tensor

from voxplain.engine.baselines import Baseline, baseline_image, foreground, intensity_range
from voxplain.engine.masks.imputation import ImputingPainter
from voxplain.engine.masks.masks import Masks, Painter
from voxplain.engine.randomness import generator, standard_normal
from voxplain.engine.stream_io import StreamInput, other_cases
from voxplain.errors import ConfigError


class Fill(BaseModel, ABC):
    """Values of removed voxels."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    kind: str

    @abstractmethod
    def images(self, item: StreamInput, size: tuple[float, ...]) -> list[Tensor]:
        """Whole images ``(C, *spatial)`` with the values of removed voxels; scores are averaged.

        Args:
            item: The image.
            size: Typical extent of removed voxels, in voxels per axis.
        """

    def painters(self, item: StreamInput, masks: Masks) -> list[Painter]:
        """One painter of masked images per image of fill values."""
        return [masks.painter(item.image, filled) for filled in self.images(item, masks.extent())]

    def runs(self, references: int | None) -> int:
        """Number of images of fill values, and so of forwards per mask."""
        return 1

    @property
    def description(self) -> str:
        """A short description for the label of a map."""
        return self.kind


class Constant(Fill):
    """A number, a number per channel, a level of the image, or an image."""

    kind: Literal["constant"] = "constant"
    value: Baseline = "zero"

    def images(self, item: StreamInput, size: tuple[float, ...]) -> list[Tensor]:
        return [baseline_image(self.value, item.clean)]

    @property
    def description(self) -> str:
        return "an image" if isinstance(self.value, Tensor) else str(self.value)


class Mean(Fill):
    """The mean of the foreground, per channel."""

    kind: Literal["mean"] = "mean"

    def images(self, item: StreamInput, size: tuple[float, ...]) -> list[Tensor]:
        levels = [channel[foreground(channel)].double().mean() for channel in item.clean]
        column = torch.stack(levels).to(item.clean).view(-1, *(1,) * (item.clean.ndim - 1))
        return [column.expand_as(item.clean)]


class Blur(Fill):
    """The image under a Gaussian blur, which keeps the brightness and removes the detail.

    Attributes:
        sigma: Standard deviation as a fraction of the extent of one mask.
    """

    kind: Literal["blur"] = "blur"
    sigma: float = Field(default=0.5, gt=0)

    def images(self, item: StreamInput, size: tuple[float, ...]) -> list[Tensor]:
        sides = zip(item.clean.shape[1:], size, strict=True)
        sigma = [0.0, *(self.sigma * extent if side > 1 else 0.0 for side, extent in sides)]
        values = item.clean.double().cpu().numpy()
        blurred = ndimage.gaussian_filter(values, sigma, mode="nearest")
        return [torch.from_numpy(blurred).to(item.clean)]


class Noise(Fill):
    """Values imputed from the surrounding voxels, with a little noise, so that masks leave no edge.

    Every removed voxel becomes the mean of its neighbors, weighted by their distance in mm (see
    ``imputation.impute``), which reveals less of the shape of a mask than a constant does.

    Attributes:
        sigma: Standard deviation of the noise, as a fraction of the intensity range.
    """

    kind: Literal["noise"] = "noise"
    sigma: float = Field(default=0.01, ge=0)

    def images(self, item: StreamInput, size: tuple[float, ...]) -> list[Tensor]:
        """The mean of the foreground with noise, for masks that leave nothing to impute from."""
        return [Mean().images(item, size)[0] + self._noise(item)]

    def painters(self, item: StreamInput, masks: Masks) -> list[Painter]:
        """One painter, which imputes for each mask."""
        (empty,) = self.images(item, masks.extent())
        return [ImputingPainter(masks, item.image, empty, self._noise(item), item.spacing)]

    def _noise(self, item: StreamInput) -> Tensor:
        """One draw for all masks of an image, so that equal masks give equal images."""
        scale = self.sigma * intensity_range(item.clean)
        return scale * standard_normal(item.clean, generator(item.key, "imputed"))


class CaseFill(Fill):
    """The voxels of other cases at the same place.

    Attributes:
        references: Largest number of cases that are used.
    """

    kind: Literal["case"] = "case"
    references: int = Field(default=8, ge=1)

    def images(self, item: StreamInput, size: tuple[float, ...]) -> list[Tensor]:
        """The references; where none are given, the other images of the batch.

        Raises:
            ConfigError: If there are no other cases.
        """
        cases = other_cases(item)
        if not cases:
            raise ConfigError(
                "this method replaces parts of the image by those of other cases, and none is "
                "given; pass at least one as references (the image itself does not count), or a "
                "batch of different images"
            )
        return cases[: self.references]

    def runs(self, references: int | None) -> int:
        return self.references if references is None else min(self.references, references)


_KINDS: dict[str, type[Fill]] = {
    str(kind.model_fields["kind"].default): kind for kind in (Constant, Mean, Blur, Noise, CaseFill)
}


def _parse_fill(value: Any) -> Any:
    """A fill from a name, a number, a mapping or a tensor."""
    if isinstance(value, str) and value in _KINDS:
        return {"kind": value}
    if isinstance(value, (Fill, Mapping)):
        return value
    return Constant(value=value)


AnyFill = Annotated[
    Annotated[Constant | Mean | Blur | Noise | CaseFill, Field(discriminator="kind")],
    BeforeValidator(_parse_fill),
]
"""``constant``, ``mean``, ``blur``, ``noise``, ``case``; numbers and baselines are constants."""
