"""The base of preprocessing steps: a frozen configuration with one method."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from voxplain.errors import ConfigError
from voxplain.image import Grid, Image, Inverse

T = TypeVar("T")


class Step(BaseModel):
    """A preprocessing step; its fields are its parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def apply(self, image: Image) -> Image:
        """The image after this step, with the inverse of the step in its history."""
        raise NotImplementedError


def moved(image: Image, data: Tensor, grid: Grid, inverse: Inverse) -> Image:
    """The image with new data on a new grid, and the inverse of the step in its history."""
    return replace(image, data=data, grid=grid, history=(*image.history, inverse))


def per_axis(value: T | tuple[T, ...], rank: int, what: str) -> tuple[T, ...]:
    """One value per spatial axis.

    Raises:
        ConfigError: If several are given and their number is not the number of axes.
    """
    values = value if isinstance(value, tuple) else (value,) * rank
    if len(values) != rank:
        raise ConfigError(f"{what} has {len(values)} values {list(values)} for {rank} image axes")
    return values
