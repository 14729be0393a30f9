"""Small changes of an image that should not change its explanation, and their inverses."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from voxplain.engine.baselines import intensity_range
from voxplain.engine.randomness import generator, standard_normal
from voxplain.errors import Undefined
from voxplain.models.output_place import OutputPlace
from voxplain.targets import UnperturbedOutput, WeightField

INSIDE = 1 - 1e-6
"""A weight that is 1 but for rounding."""


class Perturbation(ABC):
    """A way to change an image a little; subclasses are frozen dataclasses."""

    @abstractmethod
    def changed(self, image: Tensor, key: str, draw: int) -> Tensor:
        """The changed image, ``(C, *spatial)``.

        Args:
            image: ``(C, *spatial)``.
            key: Seed of random changes.
            draw: Number of the change; each draws anew.
        """

    def returned(self, values: Tensor, draw: int) -> Tensor:
        """A map of the changed image on the grid of the original, ``(C, *spatial)``."""
        return values

    def in_view(self, values: Tensor, draw: int) -> Tensor:
        """The voxels of the original that the changed image still shows, ``(*spatial)`` bool.

        Args:
            values: ``(C, *spatial)`` of the changed image; only their shape counts.
            draw: Number of the change.
        """
        return torch.ones(values.shape[1:], dtype=torch.bool, device=values.device)

    def moved(
        self, draw: int, seen: UnperturbedOutput | None = None
    ) -> Callable[[WeightField], WeightField] | None:
        """How the weight field of the target follows; None where the image stays in place.

        Args:
            draw: Number of the change.
            seen: The output, which may have another grid than the image; the same if None.

        Raises:
            Undefined: If the place of the output in the image is unknown.
        """
        return None

    def on(self, spacing: tuple[float, ...]) -> Perturbation:
        """The same change for voxels of these sizes in mm."""
        return self


@dataclass(frozen=True)
class UniformNoise(Perturbation):
    """Independent noise in [-radius, radius], as a fraction of the intensity range."""

    radius: float = 0.02

    def changed(self, image: Tensor, key: str, draw: int) -> Tensor:
        source = generator(key, "uniform", self.radius, draw)
        noise = torch.rand(image.shape, generator=source) * 2 - 1
        return image + self.radius * intensity_range(image) * noise.to(image)


@dataclass(frozen=True)
class GaussianNeighbor(Perturbation):
    """Gaussian noise like the quantum noise of CT, sigma as a fraction of the intensity range."""

    sigma: float = 0.01

    def changed(self, image: Tensor, key: str, draw: int) -> Tensor:
        source = generator(key, "gaussian", self.sigma, draw)
        return image + self.sigma * intensity_range(image) * standard_normal(image, source)


@dataclass(frozen=True)
class BiasField(Perturbation):
    """A smooth multiplicative field 1 +- strength, like the bias field of MR coils."""

    strength: float = 0.1
    order: int = 2

    def changed(self, image: Tensor, key: str, draw: int) -> Tensor:
        """The image times a random polynomial of low order; the darkest value stays."""
        source = generator(key, "bias", self.order, draw)
        field = torch.zeros(image.shape[1:], dtype=torch.float64)
        axes = [torch.linspace(-1, 1, side, dtype=torch.float64) for side in image.shape[1:]]
        long = [axis for axis, side in enumerate(image.shape[1:]) if side > 1]
        for power in range(1, self.order + 1):
            for axis in long:
                view = [-1 if other == axis else 1 for other in range(field.ndim)]
                weight = float(torch.rand((), generator=source, dtype=torch.float64)) * 2 - 1
                field = field + weight * axes[axis].view(view) ** power
        field = field - field.mean()
        field = 1 + self.strength * field / field.abs().amax().clamp_min(1e-12)
        low = image.flatten(1).amin(dim=1).view(-1, *(1,) * (image.ndim - 1))
        shaded: Tensor = low + (image - low) * field.to(image)
        return shaded


@dataclass(frozen=True)
class WindowShift(Perturbation):
    """Another intensity window, level and width changed by +- a fraction of the range."""

    strength: float = 0.05

    def changed(self, image: Tensor, key: str, draw: int) -> Tensor:
        source = generator(key, "window", self.strength, draw)
        level, width = (torch.rand(2, generator=source, dtype=torch.float64) * 2 - 1).tolist()
        middle = image.flatten(1).mean(dim=1).view(-1, *(1,) * (image.ndim - 1))
        shift = self.strength * level * intensity_range(image)
        windowed: Tensor = middle + (image - middle) * (1 + self.strength * width) + shift
        return windowed


@dataclass(frozen=True)
class Shift(Perturbation):
    """A shift along one axis, another axis per draw; the border voxels are repeated.

    Attributes:
        voxels: How far.
    """

    voxels: int = 1

    def changed(self, image: Tensor, key: str, draw: int) -> Tensor:
        return _shifted(image, self._axis(image, draw), self.voxels)

    def returned(self, values: Tensor, draw: int) -> Tensor:
        return _shifted(values, self._axis(values, draw), -self.voxels)

    def moved(
        self, draw: int, seen: UnperturbedOutput | None = None
    ) -> Callable[[WeightField], WeightField]:
        return on_weights(lambda w: _shifted(w, self._axis(w, draw), self.voxels), seen)

    def in_view(self, values: Tensor, draw: int) -> Tensor:
        axis = self._axis(values, draw)
        after = torch.arange(values.shape[axis], device=values.device) + self.voxels
        stays = (after >= 0) & (after < values.shape[axis])
        view = [-1 if other == axis else 1 for other in range(1, values.ndim)]
        return stays.view(view).expand(values.shape[1:])

    def _axis(self, values: Tensor, draw: int) -> int:
        """The axis of this draw, among those of more than one voxel."""
        long = [axis for axis in range(1, values.ndim) if values.shape[axis] > 1]
        return long[draw % len(long)] if long else values.ndim - 1


@dataclass(frozen=True)
class Rotation(Perturbation):
    """A small rotation in the plane of the two longest axes, alternating in sign.

    Attributes:
        degrees: Angle in physical space, not on the grid.
        spacing: Millimeters per voxel and axis; cubic voxels if empty.
    """

    degrees: float = 2.0
    spacing: tuple[float, ...] = ()

    def on(self, spacing: tuple[float, ...]) -> Rotation:
        return replace(self, spacing=tuple(spacing))

    def changed(self, image: Tensor, key: str, draw: int) -> Tensor:
        """The image turned about its middle, with linear interpolation."""
        return self._rotated(image, draw, 1)

    def returned(self, values: Tensor, draw: int) -> Tensor:
        return self._rotated(values, draw, -1)

    def moved(
        self, draw: int, seen: UnperturbedOutput | None = None
    ) -> Callable[[WeightField], WeightField]:
        return on_weights(lambda weights: self._rotated(weights, draw, 1), seen)

    def in_view(self, values: Tensor, draw: int) -> Tensor:
        ones = torch.ones(1, *values.shape[1:], dtype=torch.float64)
        return (self._rotated(ones, draw, -1, 0.0)[0] > INSIDE).to(values.device)

    def _rotated(
        self, values: Tensor, draw: int, sign: int, outside: float | None = None
    ) -> Tensor:
        shape = tuple(values.shape[1:])
        spacing = self.spacing or (1.0,) * len(shape)
        lengths = [(side - 1) * size for side, size in zip(shape, spacing, strict=True)]
        longest = sorted(range(len(shape)), key=lambda axis: (-lengths[axis], axis))
        first, second = sorted(longest[:2])
        planes = values.detach().double().movedim((first + 1, second + 1), (-2, -1))
        angle = sign * self.degrees * (-1) ** draw
        rotated = torch.empty_like(planes, device="cpu", memory_format=torch.contiguous_format)
        for plane, into in zip(
            planes.cpu().reshape(-1, *planes.shape[-2:]),
            rotated.view(-1, *planes.shape[-2:]),
            strict=True,
        ):
            into.copy_(_rotated_plane(plane, angle, (spacing[first], spacing[second]), outside))
        return rotated.movedim((-2, -1), (first + 1, second + 1)).contiguous().to(values)


def _rotated_plane(
    plane: Tensor, degrees: float, spacing: tuple[float, float], outside: float | None = None
) -> Tensor:
    """A plane ``(H, W)`` with voxels of this size, rotated about its middle.

    Beyond its borders it is continued by its border voxels, or has the value ``outside``.
    """
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    stretch = spacing[1] / spacing[0]
    back = np.array([[cosine, sine * stretch], [-sine / stretch, cosine]])
    middle = (np.array(plane.shape) - 1) / 2
    beyond = {"mode": "nearest"} if outside is None else {"mode": "grid-constant", "cval": outside}
    rotated = ndimage.affine_transform(
        plane.numpy(), back, middle - back @ middle, order=1, **beyond
    )
    return torch.from_numpy(rotated)


def _shifted(values: Tensor, axis: int, voxels: int) -> Tensor:
    side = values.shape[axis]
    index = (torch.arange(side, device=values.device) - voxels).clamp(0, side - 1)
    return values.index_select(axis, index)


def on_weights(
    change: Callable[[Tensor], Tensor], seen: UnperturbedOutput | None = None
) -> Callable[[WeightField], WeightField]:
    """Moves the weights of a field on a dense output as the image is moved.

    Weights on another grid are moved on the voxels of the image, each with the weight of the cell
    it lies in; the new weight of a cell is the mean over its voxels.
    """
    place = None if seen is None else seen.place
    if seen is not None and seen.is_dense and place is None:
        raise Undefined("the place of the output in the image is unknown")

    def moved(field: WeightField) -> WeightField:
        terms = tuple(
            replace(term, weights=torch.stack([_moved(row, change, place) for row in rows]))
            if (rows := term.weights).ndim > 2
            else term
            for term in field.terms
        )
        return replace(field, terms=terms)

    return moved


def _moved(row: Tensor, change: Callable[[Tensor], Tensor], place: OutputPlace | None) -> Tensor:
    if place is None or place.is_same or tuple(row.shape[1:]) != place.cells:
        return change(row)
    return place.mean_on_output(change(place.on_image(row)))


Change = Literal["noise", "shift", "bias_field", "ct_noise", "window", "rotation"]

MEDICAL: dict[str, Perturbation] = {
    "noise": UniformNoise(),
    "shift": Shift(),
    "bias_field": BiasField(),
    "ct_noise": GaussianNeighbor(),
    "window": WindowShift(),
    "rotation": Rotation(),
}
"""Changes that are common in clinical imaging, by name."""
