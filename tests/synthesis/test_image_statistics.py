"""Range, spectrum and correlation of images against NumPy, and known spectra on any voxels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from synthesis_cases import deeper, images

from voxplain.errors import InputError
from voxplain.grid import Grid
from voxplain.image import Image
from voxplain.synthesis import measure
from voxplain.synthesis.frequencies import FrequencyGrid
from voxplain.synthesis.image_statistics import frequency_grid
from voxplain.synthesis.streaming_quantiles import StreamingQuantiles


def waves(shape: tuple[int, ...], spacing: tuple[float, ...], decay: float, seed: int) -> Image:
    """Noise whose amplitude is 1 / f ** decay, f in cycles per mm."""
    grid = FrequencyGrid(shape, spacing)
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed)).double()
    scale = grid.radius.clamp_min(grid.lowest) ** -decay
    values = grid.inverse(scale * grid.forward(noise))
    return Image(values, Grid.default(shape, spacing))


@pytest.mark.parametrize("decay", [0.8, 1.6])
@pytest.mark.parametrize(
    ("shape", "spacing"), [((64, 48), (1.0, 1.0)), ((48, 40, 12), (0.7, 0.9, 3.0))]
)
def test_decay_is_that_of_the_images_on_any_voxels(
    shape: tuple[int, ...], spacing: tuple[float, ...], decay: float
) -> None:
    found = measure([waves(shape, spacing, decay, seed) for seed in range(4)])
    assert float(found.decay[0]) == pytest.approx(decay, abs=0.07)


def outlined(rank: int, side: int, inside: float, texture: float, seed: int) -> Image:
    """A ball of texture with an amplitude of 1 / f ** 0.8 on a background of 0."""
    spacing = (1.0,) * rank
    noise = waves((side,) * rank, spacing, 0.8, seed).data
    axes = torch.arange(side) - side / 2 + 0.3 * seed
    squares = [axes.square().view(-1, *(1,) * (rank - 1 - axis)) for axis in range(rank)]
    distance = torch.stack(torch.broadcast_tensors(*squares)).sum(0).sqrt()
    ball = distance < (0.28 + 0.03 * seed) * side
    values = torch.where(ball, inside + texture * noise / noise[0][ball].std(), 0.0)
    return Image(values, Grid.default((side,) * rank, spacing))


@pytest.mark.parametrize(("rank", "side", "outline"), [(2, 128, 1.5), (3, 48, 2.0)])
def test_an_outline_hides_the_decay_of_what_is_inside(rank: int, side: int, outline: float) -> None:
    """The transform of a ball falls with f ** -(rank + 1) / 2; a mean of 0 leaves no outline."""
    bright = measure([outlined(rank, side, 1.0, 1e-3, seed) for seed in range(4)])
    centered = measure([outlined(rank, side, 0.0, 1.0, seed) for seed in range(4)])
    assert float(bright.decay[0]) == pytest.approx(outline, abs=0.15)
    assert float(centered.decay[0]) == pytest.approx(0.8, abs=0.12)


def test_images_of_other_shapes_and_voxels_have_one_spectrum_in_mm() -> None:
    fine = [waves((96, 96), (0.5, 0.5), 1.2, seed) for seed in range(3)]
    coarse = [waves((40, 60), (1.0, 0.8), 1.2, seed) for seed in range(3)]
    assert float(measure([*fine, *coarse]).decay[0]) == pytest.approx(1.2, abs=0.1)


def test_intensities_and_correlation_are_those_of_the_foreground() -> None:
    cases = images(3)
    found = measure(iter(cases))
    inside = [(case.data != 0).any(dim=0) for case in cases]
    values = torch.cat([c.data[:, m] for c, m in zip(cases, inside, strict=True)], 1).double()
    spread = float(values.max() - values.min())
    low, high = np.quantile(values.numpy(), [0.005, 0.995], axis=1)
    assert np.allclose(found.low.numpy(), low, atol=1e-2 * spread)
    assert np.allclose(found.high.numpy(), high, atol=1e-2 * spread)
    assert torch.allclose(found.covariance, torch.cov(values, correction=0))
    assert torch.allclose(found.mixing @ found.mixing, torch.corrcoef(values))
    assert torch.allclose(found.background, torch.zeros(2, dtype=torch.float64))
    assert found.mask is not None
    assert not bool(found.mask[0, 0, 0])
    assert bool(found.mask[-1, -1, -1])


def test_magnitude_is_the_mean_over_images() -> None:
    cases = images(2)
    found = measure(cases)
    grid = frequency_grid(cases[0].grid)
    expected = torch.stack([grid.forward(case.data.double()).abs() for case in cases]).mean(dim=0)
    assert torch.allclose(found.magnitude, expected)
    assert torch.equal(found.magnitude_on(grid), found.magnitude)
    other = found.magnitude_on(FrequencyGrid((20, 16), (1.0, 1.5)))
    assert other.shape == (2, 20, 9)
    assert bool((other > 0).all())


def test_a_slice_and_a_volume_of_one_slice_are_the_same() -> None:
    flat, solid = measure(images(2)), measure([deeper(image) for image in images(2)])
    for name in ("low", "high", "mean", "covariance", "amplitude", "decay"):
        assert torch.allclose(getattr(flat, name), getattr(solid, name)), name
    assert torch.allclose(flat.magnitude[:, None], solid.magnitude)


def test_quantiles_of_a_stream_do_not_depend_on_its_parts() -> None:
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(0)).double()
    values[::100] *= 30
    whole, parts = StreamingQuantiles(), StreamingQuantiles()
    whole.add(values)
    for part in values.sort().values.split(997):
        parts.add(part)
    for share in (0.005, 0.3, 0.5, 0.995):
        exact = float(np.quantile(values.numpy(), share))
        assert whole.quantile(share) == pytest.approx(exact, abs=0.05)
        assert parts.quantile(share) == pytest.approx(exact, abs=0.1)
    assert math.isnan(StreamingQuantiles().quantile(0.5))


def test_images_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(InputError, match="there is no image"):
        measure([])
    with pytest.raises(InputError, match="2 channels and 2 axes beside others"):
        measure([*images(3), *images(2)])
