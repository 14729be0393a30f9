"""Parametrizations: spectra in mm, exact magnitudes, exact starts, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from synthesis_cases import images, surface
from torch import Tensor

from voxplain.errors import ConfigError
from voxplain.grid import Grid
from voxplain.synthesis.frequencies import FrequencyGrid
from voxplain.synthesis.parametrizations import (
    Accentuation,
    CoordinateNetwork,
    Fourier,
    LowResolution,
    Parametrization,
    Phase,
    Pixels,
)

FROM_NOISE = (Pixels(), LowResolution(), Fourier(), Phase(), CoordinateNetwork(width=4, depth=2))
GRIDS = [((32, 24), (1.0, 1.0)), ((24, 20, 9), (0.8, 0.8, 2.4))]


def unlimited(parametrization: Fourier, grid: Grid, count: int) -> Tensor:
    """The waves before the range is limited."""
    place = surface(grid.rank, grid, channels=1)
    canvas = parametrization.canvas(place, [f"key {n}" for n in range(count)])
    with torch.no_grad():
        return place.free(canvas.images())


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
@pytest.mark.parametrize("decay", [1.0, 1.8])
def test_fourier_waves_have_the_expected_spectrum_in_mm(
    shape: tuple[int, ...], spacing: tuple[float, ...], decay: float
) -> None:
    grid = FrequencyGrid(shape, spacing)
    values = unlimited(Fourier(decay=decay, noise=0.02), Grid.default(shape, spacing), 60)
    power = grid.forward(values).abs().square().mean(dim=(0, 1))
    expected = Fourier(decay=decay).scale(surface(len(shape), Grid.default(shape, spacing))) ** 2
    measured = power / power.mean() / (expected / expected.mean())
    for low, high in ((0.0, 0.3), (0.3, 0.6), (0.6, 1.01)):
        band = (grid.radius >= low * grid.radius.max()) & (grid.radius < high * grid.radius.max())
        assert float(measured[band].mean()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("decay", [0.7, 1.5])
def test_fourier_scale_is_isotropic_in_mm(decay: float) -> None:
    place = surface(2, Grid.default((20, 60), (3.0, 1.0)))
    scale = Fourier(decay=decay).scale(place)
    # Both axes are 60 mm long: k cycles along one are k cycles along the other.
    assert torch.allclose(scale[1:10, 0], scale[0, 1:10])
    assert float(scale[0, 2] / scale[0, 8]) == pytest.approx(4**decay)
    assert scale[0, 0] == scale[0, 1]  # f_min is one cycle over the longest axis


@pytest.mark.parametrize("kind", [*FROM_NOISE, Accentuation(gain=True)])
@pytest.mark.parametrize("rank", [2, 3])
def test_gradients_are_those_of_finite_differences(kind: Parametrization, rank: int) -> None:
    grid = Grid.default((5, 4, 3)[:rank], (1.0, 2.0, 3.0)[:rank])
    place = surface(rank, grid)
    start = None
    if isinstance(kind, Accentuation):
        start = 0.02 * place.noise(["start"])
    canvas = kind.canvas(place, ["a"], start)
    weights = torch.randn(place.shape, generator=torch.Generator().manual_seed(0)).double()

    def score(*parameters: Tensor) -> Tensor:
        return (canvas.render(parameters, 1.0) * weights).sum()

    assert torch.autograd.gradcheck(score, canvas.parameters)


@pytest.mark.parametrize("rank", [2, 3])
def test_phases_keep_the_magnitudes_of_the_data_exactly(rank: int) -> None:
    place = surface(rank)
    canvas = Phase().canvas(place, ["a", "b"])
    with torch.no_grad():
        canvas.parameters[0].normal_(std=2.0)
    found = place.frequencies.forward(canvas.images().detach()).abs()
    expected = place.statistics.magnitude.expand_as(found)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [Accentuation(), Accentuation(gain=True), Pixels(bounded=False)])
@pytest.mark.parametrize("rank", [2, 3])
def test_images_start_as_the_given_one(kind: Parametrization, rank: int) -> None:
    place, given = surface(rank), images(rank)[0].data.double()[None]
    found = kind.canvas(place, ["a"], given).images().detach()
    assert torch.allclose(found, given, atol=1e-12)


def test_accentuated_phases_keep_the_magnitudes_of_the_image() -> None:
    place, given = surface(2), 0.1 * images(2)[0].data.double()[None]
    canvas = Accentuation().canvas(place, ["a"], given)
    with torch.no_grad():
        canvas.parameters[0].normal_(std=0.3)
    found = canvas.images().detach()
    assert not torch.allclose(found, given, atol=1e-3)
    same = place.frequencies.forward(found).abs(), place.frequencies.forward(given).abs()
    assert torch.allclose(*same, atol=1e-10)


@pytest.mark.parametrize("kind", FROM_NOISE)
def test_a_volume_of_one_slice_is_the_slice(kind: Parametrization) -> None:
    flat = surface(2)
    for shape, spacing, axis in (((1, 12, 10), (1.0, 1.0, 1.5), 2), ((12, 10, 1), (1, 1.5, 1), 4)):
        place = surface(2)
        solid = type(place)(Grid.default(shape, spacing), place.statistics, place.like)
        if isinstance(kind, Phase):
            continue  # its magnitudes belong to the grid of the statistics
        first, second = kind.canvas(flat, ["a"]).images(), kind.canvas(solid, ["a"]).images()
        assert torch.allclose(first.detach(), second.detach().squeeze(axis), atol=1e-9)


@pytest.mark.parametrize("kind", [Pixels(), LowResolution(), Fourier(), CoordinateNetwork()])
def test_intensities_stay_in_the_range_of_the_data(kind: Parametrization) -> None:
    place = surface(3)
    canvas = kind.canvas(place, ["a"])
    with torch.no_grad():
        for parameter in canvas.parameters:
            parameter *= 50
    found = canvas.images().detach()
    low, high = place.per_channel(place.statistics.low), place.per_channel(place.statistics.high)
    assert bool((found >= low - 1e-9).all())
    assert bool((found <= high + 1e-9).all())
    assert float(found.std()) > 0


def test_what_lies_outside_of_the_mask_is_background() -> None:
    place = surface(2)
    mask = torch.zeros(place.grid.shape).double()
    mask[3:6, 3:6] = 1
    masked = type(place)(place.grid, place.statistics, place.like, mask)
    found = Fourier().canvas(masked, ["a"]).images().detach()[0]
    background = place.per_channel(place.statistics.background)
    assert torch.equal(found[:, mask == 0], background.expand_as(found)[:, mask == 0])
    assert bool((found[:, mask > 0] != background.expand_as(found)[:, mask > 0]).any())


def test_fine_waves_join_in_later() -> None:
    place = surface(2, Grid.default((40, 40), (1.0, 1.0)))
    canvas = Fourier(coarse_to_fine=True).canvas(place, ["a"])
    fine = place.frequencies.radius > 0.4
    powers = [
        float(
            place.frequencies.forward(place.free(canvas.images(at).detach()))[..., fine].abs().sum()
        )
        for at in (0.0, 0.3, 0.5, 1.0)
    ]
    assert powers[0] < 0.05 * powers[3]
    assert powers[0] < powers[1] < powers[2]
    assert powers[2] == powers[3]


def test_phases_of_opposite_waves_are_opposite() -> None:
    for shape in ((6, 8), (5, 7), (6, 5, 4)):
        grid = FrequencyGrid(shape, (1.0,) * len(shape))
        phases = torch.randn(grid.radius.shape, generator=torch.Generator().manual_seed(0)).double()
        unit = torch.polar(torch.ones_like(phases), grid.odd(phases))
        assert torch.allclose(grid.forward(grid.inverse(unit)).abs(), torch.ones_like(phases))
    assert math.isclose(FrequencyGrid((4, 10), (2.0, 1.0)).lowest, 0.1)


def test_a_start_is_refused_where_it_cannot_be_kept() -> None:
    given = images(2)[0].data.double()[None]
    with pytest.raises(ConfigError, match="'fourier' cannot start from a given image"):
        Fourier().canvas(surface(2), ["a"], given)
    with pytest.raises(ConfigError, match="starts from an image, and none is given"):
        Accentuation().canvas(surface(2), ["a"])
