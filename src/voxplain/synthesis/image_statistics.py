"""What the images of a user are like: range, spectrum, correlation of modalities, foreground.

Synthesized images take these from the images that the network is for, never from photographs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from voxplain.engine.baselines import foreground
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.errors import InputError
from voxplain.image import Grid, Image
from voxplain.preprocess.resample import along_axes, value_weights
from voxplain.synthesis.frequencies import FrequencyGrid
from voxplain.synthesis.streaming_quantiles import StreamingQuantiles

_BINS = 32
"""Of the frequency axis, on a logarithmic scale."""
_LOW, _HIGH = 0.005, 0.995


@dataclass(frozen=True, eq=False)
class ImageStatistics:
    """Statistics of images, as synthesis needs them.

    Attributes:
        grid: Of what follows and has spatial axes: that of the first image, or the given one.
        channels: Their names.
        images: How many were measured.
        low: 0.5 % quantile of the foreground per channel, ``(C,)``.
        high: 99.5 % quantile.
        mean: Of the foreground, ``(C,)``.
        covariance: Of the channels in the foreground, ``(C, C)``.
        background: Mean value outside of the foreground, ``(C,)``; the lowest value where there
            is no outside.
        frequencies: Middle of the bins that hold waves, in cycles per mm, ``(F,)``.
        amplitude: Mean absolute coefficient per channel and bin, ``(C, F)``; the transform keeps
            the sum of squares.
        decay: Exponent of ``amplitude ~ 1 / f ** decay``, fitted per channel, ``(C,)``, of the
            images as the network sees them. The outline of a body on a background of another
            intensity has 1.5 in 2-D and 2 in 3-D, which hides what is inside; of z-scored images,
            whose background is their mean, it is that of the inside, and smaller. As what is
            synthesized is composed with the mask afterwards, the smaller one is taken.
        magnitude: Mean absolute coefficient per channel on :attr:`grid`.
        foreground: Share of the images that have foreground at a voxel, ``(*spatial)``.
        sign_of_mean: Sign of the mean of the images per channel, that of coefficient 0.
    """

    grid: Grid
    channels: tuple[str, ...]
    images: int
    low: Tensor
    high: Tensor
    mean: Tensor
    covariance: Tensor
    background: Tensor
    frequencies: Tensor
    amplitude: Tensor
    decay: Tensor
    magnitude: Tensor
    foreground: Tensor
    sign_of_mean: Tensor

    @property
    def range(self) -> Tensor:
        """99.5 % minus 0.5 % quantile per channel, ``(C,)``; 1 for a constant channel."""
        span = self.high - self.low
        return torch.where(span > 0, span, 1.0)

    @property
    def mask(self) -> Tensor | None:
        """Where most images have foreground, ``(*spatial)``; None where that is everywhere."""
        inside = self.foreground >= 0.5
        return None if bool(inside.all()) or not bool(inside.any()) else inside

    @property
    def mixing(self) -> Tensor:
        """Square root of the correlation matrix of the channels, ``(C, C)``, symmetric."""
        spread = self.covariance.diagonal().sqrt()
        spread = torch.where(spread > 0, spread, 1.0)
        correlation = self.covariance / spread / spread[:, None]
        correlation.fill_diagonal_(1.0)
        values, vectors = torch.linalg.eigh(correlation)
        mixing: Tensor = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
        return mixing

    def magnitude_on(self, grid: FrequencyGrid) -> Tensor:
        """Mean absolute coefficient per channel on a grid of frequencies.

        On another grid than :attr:`grid` it is interpolated from :attr:`amplitude`, so that it is
        the same in all directions.
        """
        if grid == frequency_grid(self.grid):
            return self.magnitude
        radius = np.log(grid.radius.clamp_min(grid.lowest / 2).numpy())
        known = np.log(self.frequencies.numpy())
        rows = [np.exp(np.interp(radius, known, np.log(row.numpy()))) for row in self.amplitude]
        found = torch.from_numpy(np.stack(rows))
        found[grid.constant] = self.mean.abs() * math.sqrt(math.prod(grid.shape))
        return found


def frequency_grid(grid: Grid) -> FrequencyGrid:
    """The frequencies of images on a grid; in cycles per voxel where its spacing is unknown."""
    return FrequencyGrid(grid.shape, grid.spacing)


def measure(
    images: Iterable[Image | CohortCase] | Cohort, grid: Grid | None = None
) -> ImageStatistics:
    """Reads images one after another, in memory one at a time.

    Shapes and spacings may differ. What is measured per voxel or per wave is measured on one grid,
    onto which the others are resampled, center on center, in mm.

    Args:
        images: Images, cases or a cohort, as the network sees them.
        grid: Of the mask and of the magnitudes; that of the first image if None.

    Raises:
        InputError: If there is no image, or if their channels differ.
    """
    sums: _Sums | None = None
    for each in images:
        image = each.image if isinstance(each, CohortCase) else each
        if sums is None:
            sums = _Sums(grid or image.grid, image.channels)
        sums.add(image)
    if sums is None:
        raise InputError("there is no image whose range and spectrum could be measured")
    return sums.statistics()


@dataclass
class _Sums:
    """What is added up over images."""

    grid: Grid
    channels: tuple[str, ...]
    images: int = 0
    voxels: float = 0.0
    outside: float = 0.0
    parts: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.quantiles = [StreamingQuantiles() for _ in self.channels]
        frequencies = frequency_grid(self.grid)
        top = float(frequencies.radius.max()) or frequencies.lowest * 2
        low, high = math.log(frequencies.lowest), math.log(top * 1.01)
        self.edges = torch.linspace(low, high, _BINS + 1, dtype=torch.float64)
        self.common = frequencies.common

    def add(self, image: Image) -> None:
        if len(image.data) != len(self.channels) or image.rank != self.grid.rank:
            raise InputError(
                f"an image with {len(image.data)} channels and {image.rank} axes beside others "
                f"with {len(self.channels)} channels and {self.grid.rank} axes"
            )
        data = image.data.detach().double().cpu()
        inside = torch.stack([foreground(channel) for channel in data]).any(dim=0)
        self.images += 1
        self._add_intensities(data, inside)
        self._add_spectrum(data, image.grid)
        self._add_on_grid(data, inside, image.grid)

    def _add_intensities(self, data: Tensor, inside: Tensor) -> None:
        values, outside = data[:, inside], data[:, ~inside]
        for quantiles, channel in zip(self.quantiles, values, strict=True):
            quantiles.add(channel)
        self.voxels += values.shape[1]
        self.outside += outside.shape[1]
        self._add("sum", values.sum(dim=1))
        self._add("products", values @ values.T)
        self._add("outside", outside.sum(dim=1))

    def _add_spectrum(self, data: Tensor, grid: Grid) -> None:
        frequencies = frequency_grid(grid)
        radius = frequencies.radius.flatten()
        amplitude = frequencies.forward(data).abs().flatten(1)
        index = torch.bucketize(radius.clamp_min(1e-300).log(), self.edges) - 1
        known = (index >= 0) & (index < _BINS)
        counts = torch.bincount(index[known], minlength=_BINS).double()
        rows = [torch.bincount(index[known], row[known], minlength=_BINS) for row in amplitude]
        logs = torch.bincount(index[known], radius[known].log(), minlength=_BINS)
        self._add("waves", counts)
        self._add("amplitude", torch.stack(rows))
        self._add("logs", logs)

    def _add_on_grid(self, data: Tensor, inside: Tensor, grid: Grid) -> None:
        placed = onto(torch.cat([data, inside[None].double()]), grid, self.grid)
        self._add("magnitude", frequency_grid(self.grid).forward(placed[:-1]).abs())
        self._add("foreground", placed[-1])
        self._add("whole", placed[:-1].flatten(1).mean(dim=1))

    def _add(self, name: str, values: Tensor) -> None:
        self.parts[name] = self.parts[name] + values if name in self.parts else values

    def statistics(self) -> ImageStatistics:
        parts, count = self.parts, max(self.voxels, 1.0)
        mean = parts["sum"] / count
        low = torch.tensor([each.quantile(_LOW) for each in self.quantiles], dtype=torch.float64)
        high = torch.tensor([each.quantile(_HIGH) for each in self.quantiles], dtype=torch.float64)
        filled = parts["waves"] > 0
        frequencies = (parts["logs"][filled] / parts["waves"][filled]).exp()
        amplitude = parts["amplitude"][:, filled] / parts["waves"][filled]
        return ImageStatistics(
            grid=self.grid,
            channels=self.channels,
            images=self.images,
            low=low,
            high=high,
            mean=mean,
            covariance=parts["products"] / count - torch.outer(mean, mean),
            background=parts["outside"] / self.outside if self.outside else low,
            frequencies=frequencies,
            amplitude=amplitude.clamp_min(1e-12),
            decay=_decay(frequencies, amplitude, self.common),
            magnitude=parts["magnitude"] / self.images,
            foreground=parts["foreground"] / self.images,
            sign_of_mean=torch.where(parts["whole"] < 0, -1.0, 1.0).double(),
        )


def _decay(frequencies: Tensor, amplitude: Tensor, common: float) -> Tensor:
    """The exponent per channel, fitted where waves run in all directions; 1 where it is unclear."""
    chosen = (frequencies <= common) & (frequencies >= 2 * frequencies[:1])
    if int(chosen.sum()) < 3:
        return torch.ones(len(amplitude), dtype=torch.float64)
    logs = np.log(frequencies[chosen].numpy())
    rows = [np.log(np.maximum(row[chosen].numpy(), 1e-12)) for row in amplitude]
    return torch.tensor([max(0.0, -float(np.polyfit(logs, row, 1)[0])) for row in rows])


def onto(values: Tensor, source: Grid, target: Grid) -> Tensor:
    """Values ``(C, *spatial)`` on another grid, center on center in mm; beyond, edges repeat."""
    same = np.allclose(source.spacing, target.spacing)
    if source.shape == target.shape and same:
        return values
    ratios = [new / old for new, old in zip(target.spacing, source.spacing, strict=True)]
    axes = zip(source.shape, target.shape, ratios, strict=True)
    matrices = [_axis(old, new, ratio) for old, new, ratio in axes]
    return along_axes(values, matrices)


def _axis(source: int, target: int, step: float) -> Tensor:
    return value_weights(source, target, (source - 1) / 2 - step * (target - 1) / 2, step)


def as_images(images: Sequence[Image] | Cohort | Image) -> Iterable[Image | CohortCase]:
    """One image as several."""
    return [images] if isinstance(images, Image) else images
