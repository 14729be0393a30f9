"""Parametrizations: which numbers are optimized, and how they become images."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from voxplain.engine.randomness import generator
from voxplain.errors import ConfigError
from voxplain.preprocess.resample import along_axes, value_weights
from voxplain.synthesis.surface import Surface

_STRENGTH = 0.25
"""Of a coefficient of size 1; smaller ones keep images from saturating."""

Render = Callable[[Sequence[Tensor], float], Tensor]


@dataclass(frozen=True, eq=False)
class Canvas:
    """Images that are optimized together; none of them depends on the others.

    Attributes:
        parameters: What is optimized, ``(B, ...)`` each.
        render: From the parameters and the share of the steps that are done to images
            ``(B, C, *spatial)``.
    """

    parameters: tuple[Tensor, ...]
    render: Render

    def images(self, progress: float = 1.0) -> Tensor:
        """The images now, ``(B, C, *spatial)``."""
        return self.render(self.parameters, progress)


class Parametrization(BaseModel, ABC):
    """Which numbers are optimized, and how they become images.

    Attributes:
        pace: Steps relative to the rate of the optimizer.
        kind: Its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pace: ClassVar[float] = 1.0

    kind: str

    def louder(self) -> Parametrization:
        """The same from noise that is ten times as strong, where it starts from noise."""
        noise = getattr(self, "noise", None)
        return self if noise is None else self.model_copy(update={"noise": 10 * noise})

    @abstractmethod
    def canvas(self, surface: Surface, keys: Sequence[str], start: Tensor | None = None) -> Canvas:
        """Images to begin with.

        Args:
            surface: Where they lie.
            keys: One per image, from which its random numbers are drawn.
            start: Images to start from, ``(B, C, *spatial)``; None starts from noise.
        """


class Pixels(Parametrization):
    """The voxels themselves.

    Attributes:
        bounded: Whether intensities stay between the quantiles of the data, and what lies outside
            of the body mask stays; otherwise the voxels are free, in units of the range.
        noise: Standard deviation of the start, in intensity ranges.
    """

    kind: Literal["pixel"] = "pixel"
    bounded: bool = True
    noise: float = Field(default=0.1, ge=0)

    def canvas(self, surface: Surface, keys: Sequence[str], start: Tensor | None = None) -> Canvas:
        """One number per voxel and channel."""
        if self.bounded:
            first = surface.noise(keys, 4 * self.noise) if start is None else surface.free(start)
            return _canvas([first], lambda now, _: surface.composed(surface.in_range(now[0])))
        spans = surface.per_channel(surface.statistics.range)
        if start is None:
            mean = surface.per_channel(surface.statistics.mean)
            start = mean + self.noise * spans * surface.noise(keys)
        return _canvas([start / spans], lambda now, _: now[0] * spans)


class LowResolution(Parametrization):
    """Cells of several voxels, interpolated linearly; cubes in mm where spacing allows.

    Attributes:
        cell: Voxels per cell along the finest axis.
        noise: Standard deviation of the start.
    """

    kind: Literal["lowres"] = "lowres"
    cell: float = Field(default=4.0, ge=1)
    noise: float = Field(default=0.4, ge=0)

    def canvas(self, surface: Surface, keys: Sequence[str], start: Tensor | None = None) -> Canvas:
        """One number per cell and channel, with the correlation of the modalities."""
        _refuse(start, self.kind)
        shape, spacing = surface.grid.shape, surface.grid.spacing
        width = self.cell * min(spacing)
        cells = [
            max(1, math.ceil(n * s / max(width, s))) for n, s in zip(shape, spacing, strict=True)
        ]
        matrices = [
            value_weights(cell, size, (cell / size - 1) / 2, cell / size) if cell != size else None
            for cell, size in zip(cells, shape, strict=True)
        ]
        like = surface.like.new_empty(surface.shape[0], *cells)
        drawn = [
            torch.randn(like.shape, generator=generator("synthesis", key, "start")) for key in keys
        ]

        def render(now: Sequence[Tensor], _: float) -> Tensor:
            values = surface.mixed(along_axes(now[0], matrices))
            return surface.composed(surface.in_range(values))

        return _canvas([self.noise * torch.stack(drawn).to(like)], render)


class Fourier(Parametrization):
    """Fourier coefficients, scaled so that waves are as strong as in the images of the user.

    x = range(C irFFT(s z)) with s(f) = 1 / max(f, f_min)^decay, f in cycles per mm, and C the
    square root of the correlation of the modalities.

    Attributes:
        decay: Of the amplitude with frequency; that of the data, averaged over channels, if None.
        noise: Standard deviation of the start, before the range is limited.
        coarse_to_fine: Whether fine waves join in during the first half of the steps.
    """

    kind: Literal["fourier"] = "fourier"
    decay: float | None = Field(default=None, ge=0)
    noise: float = Field(default=0.1, ge=0)
    coarse_to_fine: bool = False

    def scale(self, surface: Surface) -> Tensor:
        """s(f), scaled to a mean square of 1 over all coefficients."""
        frequencies = surface.frequencies
        decay = float(surface.statistics.decay.mean()) if self.decay is None else self.decay
        scale = frequencies.radius.clamp_min(frequencies.lowest) ** -decay
        return scale / scale.square().mean().sqrt()

    def canvas(self, surface: Surface, keys: Sequence[str], start: Tensor | None = None) -> Canvas:
        """Real and imaginary parts ``(B, C, *frequencies, 2)``."""
        _refuse(start, self.kind)
        frequencies = surface.frequencies
        scale = self.scale(surface).to(surface.like)
        radius = (frequencies.radius / max(float(frequencies.radius.max()), 1e-12)).to(scale)
        noise = surface.noise(keys, self.noise / _STRENGTH)
        first = torch.view_as_real(frequencies.forward(noise))

        def render(now: Sequence[Tensor], progress: float) -> Tensor:
            shown = scale
            if self.coarse_to_fine and progress < 0.5:
                cutoff = 0.1 ** (1 - 2 * progress)
                shown = scale * torch.exp(-0.5 * (radius / cutoff) ** 4)
            values = frequencies.inverse(shown * torch.view_as_complex(now[0].contiguous()))
            return surface.composed(surface.in_range(_STRENGTH * surface.mixed(values)))

        return _canvas([first], render)


class Phase(Parametrization):
    """Phases alone: every wave has the mean magnitude that it has in the images of the user.

    Intensities are not limited beyond that, and nothing is masked, as both would change the
    magnitudes.

    Paper: Fel et al., Unlocking feature visualization for deeper networks with magnitude
    constrained optimization, 2023.
    """

    kind: Literal["phase"] = "phase"

    def canvas(self, surface: Surface, keys: Sequence[str], start: Tensor | None = None) -> Canvas:
        """Phases ``(B, C, *frequencies)``, from those of noise or of given images."""
        frequencies, statistics = surface.frequencies, surface.statistics
        magnitude = statistics.magnitude_on(frequencies).to(surface.like)
        given = surface.noise(keys) if start is None else start
        phases = frequencies.forward(given).angle()
        if start is None:
            constant = torch.where(statistics.sign_of_mean < 0, math.pi, 0.0).to(phases)
            phases[frequencies.constant] = constant

        def render(now: Sequence[Tensor], _: float) -> Tensor:
            turned = phases + frequencies.odd(now[0])
            return frequencies.inverse(torch.polar(magnitude.expand_as(turned), turned))

        return _canvas([torch.zeros_like(phases)], render)


class Accentuation(Parametrization):
    """Phases of a given image, whose magnitudes stay or get a gain, in the range of the data.

    Paper: Hamblin et al., Feature accentuation: revealing what features respond to in natural
    images, 2024.

    Attributes:
        gain: Whether magnitudes are optimized as well, each times a positive factor.
    """

    kind: Literal["accentuation"] = "accentuation"
    gain: bool = False

    def canvas(self, surface: Surface, keys: Sequence[str], start: Tensor | None = None) -> Canvas:
        """Changes of phases, and logarithms of gains, ``(B, C, *frequencies)``."""
        if start is None:
            raise ConfigError("an accentuation starts from an image, and none is given")
        frequencies = surface.frequencies
        first = frequencies.forward(start)
        magnitude, phases = first.abs(), first.angle()
        lowest = torch.minimum(start, surface.per_channel(surface.statistics.low))
        highest = torch.maximum(start, surface.per_channel(surface.statistics.high))
        rest = start - frequencies.inverse(torch.polar(magnitude, phases))
        parameters = [torch.zeros_like(phases) for _ in range(1 + self.gain)]

        def render(now: Sequence[Tensor], _: float) -> Tensor:
            turned = phases + frequencies.odd(now[0])
            strength = magnitude * now[1].exp() if self.gain else magnitude
            changed = rest + frequencies.inverse(torch.polar(strength, turned))
            return surface.composed(torch.clamp(changed, lowest, highest))

        return _canvas(parameters, render)


class CoordinateNetwork(Parametrization):
    """A small network from the place of a voxel to its channels (a CPPN).

    Paper: Mordvintsev et al., Differentiable image parameterizations, 2018.

    Attributes:
        width: Units per layer.
        depth: Layers.
    """

    pace: ClassVar[float] = 0.1

    kind: Literal["cppn"] = "cppn"
    width: int = Field(default=24, ge=1)
    depth: int = Field(default=6, ge=1)

    def canvas(self, surface: Surface, keys: Sequence[str], start: Tensor | None = None) -> Canvas:
        """Weights ``(B, inputs, outputs)`` of every layer."""
        _refuse(start, self.kind)
        places = _places(surface)
        inner = 2 * self.width
        sizes = [places.shape[1], *(inner,) * self.depth]
        shapes = [(size, self.width) for size in sizes[:-1]] + [(inner, surface.shape[0])]
        weights = []
        for layer, (inputs, outputs) in enumerate(shapes):
            sources = [generator("synthesis", key, "start", layer) for key in keys]
            drawn = [torch.randn(inputs, outputs, generator=source) for source in sources]
            weights.append(torch.stack(drawn).to(surface.like) / math.sqrt(inputs))

        def render(now: Sequence[Tensor], _: float) -> Tensor:
            values = places.expand(len(now[0]), *places.shape)
            for matrix in now[:-1]:
                values = torch.atan(values @ matrix)
                values = torch.cat([values / 0.67, (values.square() - 0.45) / 0.6], dim=-1)
            channels = (values @ now[-1]).movedim(-1, 1)
            shaped = channels.reshape(len(values), *surface.shape)
            return surface.composed(surface.in_range(surface.mixed(shaped)))

        return _canvas(weights, render)


AnyParametrization = Annotated[
    Pixels | LowResolution | Fourier | Phase | Accentuation | CoordinateNetwork,
    Field(discriminator="kind"),
]


def _canvas(parameters: Sequence[Tensor], render: Render) -> Canvas:
    leaves = tuple(values.detach().clone().requires_grad_(True) for values in parameters)
    return Canvas(leaves, render)


def _refuse(start: Tensor | None, kind: str) -> None:
    if start is not None:
        raise ConfigError(
            f"images of the parametrization {kind!r} cannot start from a given image; "
            "pixel, phase and accentuation can"
        )


def _places(surface: Surface) -> Tensor:
    """Where voxels lie along the axes with more than one, ``(voxels, axes + 1)``.

    In units in which the longest axis has a spread of about 1, with a column of ones.
    """
    grid = surface.grid
    half = max(size * step for size, step in zip(grid.shape, grid.spacing, strict=True)) / 2
    columns = [torch.ones(grid.shape)]
    for axis, (size, step) in enumerate(zip(grid.shape, grid.spacing, strict=True)):
        if size > 1:
            line = (torch.arange(size) - (size - 1) / 2) * step / half * math.sqrt(3)
            columns.append(line.view(-1, *(1,) * (grid.rank - 1 - axis)).expand(grid.shape))
    return torch.stack([column.flatten() for column in columns], dim=1).to(surface.like)
