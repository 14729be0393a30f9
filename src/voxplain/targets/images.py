"""Targets of networks that give an image back: its intensity, and how far it is from another."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from voxplain.errors import TargetError
from voxplain.io import read_image
from voxplain.targets.base import Target, UnperturbedOutput
from voxplain.targets.field import Term, WeightField
from voxplain.targets.regions import Region

Reduction = Literal["sum", "mean"]


class ImageTarget(Target):
    """A quantity of one channel of the output, in a region of it or all over.

    Attributes:
        channel: Of the output.
        mask: Region: boolean or integer array on the output grid, or a mask file on the grid of
            the scan; non-zero is inside.
        value: The label of the mask that is inside; every non-zero label if None.
        box: Region: ``(start, stop)`` per axis in voxels of the output.
        reduction: The sum over the region, or the mean.
    """

    files: ClassVar[tuple[str, ...]] = ("mask",)

    channel: int = Field(default=0, ge=0)
    mask: Any = None
    value: int | None = None
    box: tuple[tuple[int, int], ...] | None = None
    reduction: Reduction = "mean"

    @model_validator(mode="after")
    def _at_most_one_region(self) -> ImageTarget:
        if self.mask is not None and self.box is not None:
            raise ValueError(f"a target {self.kind} takes a mask or a box, not both")
        if self.value is not None and self.mask is None:
            raise ValueError("value is a label of the mask, and no mask is given")
        if self.signed_for == "predicted":
            raise ValueError(f"a target {self.kind} predicts no class, so signed_for stays class")
        return self

    def _weights(self, unperturbed: UnperturbedOutput) -> tuple[Tensor, tuple[str, ...]]:
        """Weights ``(B, K, *spatial)`` of the sum or mean, and the place of each image in words."""
        inside = self._inside(unperturbed)
        sizes = inside.flatten(1).sum(dim=1)
        column = sizes.clamp(min=1).view(-1, *(1,) * (inside.ndim - 1))
        weights = inside / column if self.reduction == "mean" else inside
        if not unperturbed.is_dense:
            return weights, ("",) * len(weights)
        where = "of the given mask" if self.mask is not None else "of the image"
        where = where if self.box is None else f"of the box {self.box}"
        words = (f" over the {int(size)} {unperturbed.elements} {where}" for size in sizes)
        return weights, tuple(words)

    def _inside(self, unperturbed: UnperturbedOutput) -> Tensor:
        """1 at the channel in the region, ``(B, K, *spatial)``.

        Raises:
            TargetError: If there is no such channel, or no place for a region.
        """
        output = unperturbed.output
        channels = output.shape[1]
        if self.channel >= channels:
            raise TargetError(
                f"output channel {self.channel} does not exist; the output has 0 to {channels - 1}"
            )
        if self.mask is None and self.box is None:
            inside = torch.zeros_like(output)
            inside[:, self.channel] = 1
            return inside
        if not unperturbed.is_dense:
            raise TargetError(
                f"a region of {self.kind} needs an output with places, and this network gives "
                f"{channels} numbers"
            )
        label = self.channel if channels > 1 else 1
        region = Region(label=label, mask=self.mask, value=self.value, box=self.box)
        return region.rebind(unperturbed).terms[0].weights

    def why_empty(self, unperturbed: UnperturbedOutput, row: int) -> str:
        """A sentence that the region is empty."""
        del row
        return f"the region of {self} holds no {unperturbed.elements[:-1]} of the output"


class Intensity(ImageTarget):
    """The intensity of an output channel, summed or averaged over a region.

    For regression networks without places it is one of their numbers.
    """

    kind: Literal["intensity"] = "intensity"

    def _field(self, unperturbed: UnperturbedOutput) -> WeightField:
        weights, places = self._weights(unperturbed)
        start = f"the {self.reduction} of " if unperturbed.is_dense else ""
        return WeightField(
            terms=(Term(weights),),
            offset=weights.new_zeros(len(weights)),
            in_words=tuple(f"{start}output channel {self.channel}{place}" for place in places),
        )


class ReconstructionError(ImageTarget):
    """The squared difference of an output channel from a reference, summed or averaged.

    Positive values of a map raise the error.

    Attributes:
        reference: What the channel should be: array ``(*spatial)``, or one per image, on the
            output grid; or a file on the grid of the scan, in the intensities of the output.
    """

    files: ClassVar[tuple[str, ...]] = ("mask", "reference")

    kind: Literal["reconstruction_error"] = "reconstruction_error"
    reference: Any

    def _field(self, unperturbed: UnperturbedOutput) -> WeightField:
        weights, places = self._weights(unperturbed)
        wanted = self._wanted(unperturbed)
        # sum W (F - r)^2 = sum W F^2 - sum 2 W r F + sum W r^2
        constant = (weights.double() * wanted.double().square()).flatten(1).sum(dim=1)
        kind = "mean squared" if self.reduction == "mean" else "summed squared"
        return WeightField(
            terms=(Term(weights, "square"), Term(-2 * weights * wanted)),
            offset=constant,
            in_words=tuple(
                f"the {kind} difference of output channel {self.channel} from the reference{place}"
                for place in places
            ),
        )

    def _wanted(self, unperturbed: UnperturbedOutput) -> Tensor:
        """The reference ``(B or 1, 1, *spatial)`` with the type of the output."""
        output = unperturbed.output
        shape = tuple(output.shape[2:])
        values = _values(self.reference, unperturbed)
        if values.ndim == len(shape) + 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim == len(shape):
            values = values[None]
        fits = tuple(values.shape[1:]) == shape and len(values) in (1, len(output))
        if not fits:
            raise TargetError(
                f"a reference of shape {tuple(values.shape)} does not fit an output channel of "
                f"shape {shape} of {len(output)} images"
            )
        if not torch.isfinite(values).all():
            raise TargetError("the reference holds NaN or infinite values")
        return values[:, None].to(output)


def _values(reference: Any, unperturbed: UnperturbedOutput) -> Tensor:
    if not isinstance(reference, (str, Path)):
        is_tensor = isinstance(reference, Tensor)
        return (
            reference.as_subclass(Tensor) if is_tensor else torch.as_tensor(np.asarray(reference))
        )
    image = unperturbed.image
    if image is None:
        raise TargetError("a reference file needs an image on its grid; pass an Image, or an array")
    read = read_image(reference, rank=image.rank)  # type: ignore[arg-type]
    if len(read.data) != 1:
        raise TargetError(f"a reference has one channel, and the file has {len(read.data)}")
    return image.carry(read.data)[0]
