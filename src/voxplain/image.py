"""An image on its grid: voxels, their place in the patient, and the steps that led there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from voxplain.errors import InputError
from voxplain.grid import Grid
from voxplain.objects import placed_array

__all__ = ["Grid", "Image", "Inverse", "Mode"]

Mode = Literal["value", "mass", "label"]


class Inverse(Protocol):
    """A spatial preprocessing step that was applied, in both directions."""

    @property
    def name(self) -> str:
        """The kind of the step, as named in a study."""

    @property
    def grid(self) -> Grid:
        """The grid before the step."""

    def __call__(self, values: Tensor, mode: Mode) -> Tensor:
        """Brings ``(C, *spatial)`` from the grid after the step to :attr:`grid`."""

    def forward(self, values: Tensor, mode: Mode = "label") -> Tensor:
        """Brings ``(..., *spatial)`` from :attr:`grid` to the grid after the step."""


@dataclass(frozen=True, eq=False)
class Image:
    """Channels on a grid, with the preprocessing that led there from the source file.

    Attributes:
        data: ``(C, *spatial)``, floating point.
        grid: Where the voxels lie; ``grid.shape == data.shape[1:]``.
        channels: Name of each channel, such as ``("flair", "t1")``.
        history: Inverses of the spatial preprocessing steps, in the order of the steps.
        intensity: Slope and intercept per channel that turn a value of ``data`` into the
            intensity of the source file (HU in a CT); empty where both are equal.
        source: Facts about the file without identity (modality, format).
    """

    data: Tensor
    grid: Grid
    channels: tuple[str, ...] = ()
    history: tuple[Inverse, ...] = ()
    intensity: tuple[tuple[float, float], ...] = ()
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        data = _real(_plain(self.data))
        if tuple(data.shape[1:]) != self.grid.shape:
            raise InputError(
                f"image data of shape {tuple(data.shape)} does not fit a grid of shape "
                f"{self.grid.shape}; the data need one leading channel axis"
            )
        names = self.channels or tuple(f"channel {index}" for index in range(len(data)))
        if len(names) != len(data):
            raise InputError(f"{len(names)} channel names for {len(data)} channels")
        if self.intensity and len(self.intensity) != len(data):
            raise InputError(f"{len(self.intensity)} intensity scales for {len(data)} channels")
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "channels", tuple(names))

    @classmethod
    def from_array(cls, array: Any, spacing: ArrayLike | None = None) -> Image:
        """An image from an array or tensor, or from an image object of another library.

        A bare array ``(C, *spatial)`` comes on an axis-aligned grid without orientation. Objects
        that know where they lie keep their affine: ``MetaTensor`` of MONAI ``(C, *spatial)``,
        images of nibabel, SimpleITK and TorchIO (one slice becomes a 2-D image, except of
        SimpleITK). A picture of Pillow becomes ``(C, rows, columns)``.

        Args:
            array: Real numbers.
            spacing: Millimeters per voxel, for arrays that do not know it; pixels if None.

        Raises:
            InputError: If the values are complex or boolean, an axis is empty, or ``spacing`` is
                given for an object that has its own.
        """
        found = placed_array(array)
        if found is None:
            data = _plain(array)
            return cls(data, Grid.default(tuple(data.shape[1:]), spacing))
        data, shape = _plain(found.data), tuple(found.data.shape[1:])
        if found.affine is None:
            grid = Grid.picture(shape, spacing) if found.picture else Grid.default(shape, spacing)
        elif spacing is None:
            grid = Grid(shape, found.affine, code=found.code)
        else:
            raise InputError("the image states its own spacing; leave the argument out")
        return cls(data, grid, found.channels)

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return self.grid.rank

    @property
    def source_grid(self) -> Grid:
        """The grid of the file, before any preprocessing."""
        return self.history[0].grid if self.history else self.grid

    @property
    def outputs_first(self) -> bool:
        """Whether outputs are brought to the source grid before classes are decided on them."""
        return any(getattr(step, "outputs_first", False) for step in self.history)

    def restore(self, values: Tensor, mode: Mode = "value") -> Tensor:
        """A map on this image's grid, brought back to the source grid.

        Args:
            values: ``(C, *spatial)`` with any number of channels.
            mode: ``value`` interpolates; ``mass`` also keeps the sum over space (densities such
                as integrated gradients); ``label`` takes the nearest value.

        Returns:
            The map on :attr:`source_grid`: 0 in what preprocessing had cropped; values on padding
            are dropped.

        Raises:
            InputError: If the map is not on this image's grid.
        """
        _require_shape("map", tuple(values.shape[1:]), self.grid.shape)
        for step in reversed(self.history):
            values = step(values, mode)
        return values

    def project(self, labels: Tensor) -> Tensor:
        """Labels ``(*spatial)`` on the source grid, brought to this image's grid by nearest voxel.

        Raises:
            InputError: If the labels are not on :attr:`source_grid`.
        """
        _require_shape("label mask", tuple(labels.shape), self.source_grid.shape)
        for step in self.history:
            labels = step.forward(labels)
        return labels

    def carry(self, values: Tensor, mode: Mode = "value") -> Tensor:
        """A map on the source grid, as in a file, brought to this image's grid.

        Args:
            values: ``(C, *spatial)`` with any number of channels.
            mode: ``value`` interpolates, ``mass`` also keeps the sum over space.

        Raises:
            InputError: If the map is not on :attr:`source_grid`.
        """
        _require_shape("map", tuple(values.shape[1:]), self.source_grid.shape)
        for step in self.history:
            values = step.forward(values, mode)
        return values

    def source_intensity(self, value: float) -> list[float]:
        """The intensity in the source file of a value of :attr:`data`, per channel.

        Clipping and masking of the background are not undone: after a z-score over the foreground,
        0 is the mean of the foreground.
        """
        slopes = self.intensity or ((1.0, 0.0),) * len(self.channels)
        return [value * slope + intercept for slope, intercept in slopes]


def _plain(array: Any) -> Tensor:
    """A plain tensor of any array, also of one that is flipped or has the other byte order."""
    if isinstance(array, Tensor):
        return array.as_subclass(Tensor)
    values = np.asarray(array)
    native = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))
    try:
        return torch.from_numpy(native if native.flags.writeable else native.copy())
    except TypeError:
        raise InputError(f"an image needs real numbers, not {values.dtype}") from None


def _real(data: Tensor) -> Tensor:
    """The same as floating point, without gradients."""
    if data.is_complex() or data.dtype == torch.bool:
        kind = "complex numbers" if data.is_complex() else "true and false"
        raise InputError(f"an image holds real numbers, not {kind}; convert it first")
    if data.numel() == 0:
        raise InputError(f"an image of shape {tuple(data.shape)} holds no voxels")
    return data.detach() if data.is_floating_point() else data.detach().to(torch.float32)


def _require_shape(what: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected:
        raise InputError(f"a {what} of shape {shape} does not lie on the grid of shape {expected}")
