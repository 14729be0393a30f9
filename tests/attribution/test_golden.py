"""Maps computed by hand, under variations of the call that must not change them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import torch
from networks import SPELLINGS, Cubes, ModelK, ModelM, Spelling, TwoInputs, untouched
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.engine.randomness import GaussianNoise

IMAGE_K = torch.arange(16.0).view(1, 1, 4, 4)


@dataclass(frozen=True)
class Lift:
    """A variation of the call with the same map: rank, batch, other methods, data type."""

    image: Callable[[Tensor], Tensor] = lambda image: image
    dtype: torch.dtype = torch.float32
    row: int = 0
    company: tuple[str, ...] = ()
    tolerance: float = field(default=1e-5)


def _in_a_batch(image: Tensor) -> Tensor:
    source = torch.Generator().manual_seed(3)
    others = torch.randn(7, *image.shape[1:], generator=source) * 10
    return torch.cat([others[:5], image, others[5:]])


def _channels_last(image: Tensor) -> Tensor:
    layout = torch.channels_last if image.ndim == 4 else torch.channels_last_3d
    return image.expand(-1, -1, *image.shape[2:]).contiguous(memory_format=layout)


def _strided(image: Tensor) -> Tensor:
    wide = torch.full((*image.shape[:-1], 2 * image.shape[-1]), 99.0)
    wide[..., ::2] = image
    return wide[..., ::2]


LIFTS = {
    "alone": Lift(),
    "float64": Lift(dtype=torch.float64, tolerance=1e-10),
    "batch of 8": Lift(image=_in_a_batch, row=5),
    "channels last": Lift(image=_channels_last),
    "not contiguous": Lift(image=_strided),
    "shared stream": Lift(company=("saliency", "grad_cam", "layer_activation")),
}


@pytest.fixture(params=LIFTS)
def lift(request: pytest.FixtureRequest) -> Lift:
    return LIFTS[request.param]


def found(
    network: nn.Module, image: Tensor, method: dict[str, object], lift: Lift
) -> tuple[Tensor, float]:
    """The map of one method for the image, and its completeness residual."""
    network = network.eval().to(lift.dtype)
    given = lift.image(image)
    before = given.clone()
    with untouched(network):
        maps = explain(
            network, given, [*_fitting(lift), method], {"kind": "class_score", "label": 0}
        )
    assert torch.equal(given, before)
    assert not given.requires_grad
    attribution = maps[str(method["name"])]
    residual = attribution.stats.completeness
    return attribution.map[lift.row].to(lift.dtype), residual[lift.row] if residual else 0.0


def _fitting(lift: Lift) -> list[dict[str, object]]:
    return [{"name": name, "label": f"company {name}"} for name in lift.company]


def near(values: Tensor, expected: list[float], tolerance: float) -> None:
    wanted = torch.tensor(expected, dtype=values.dtype)
    torch.testing.assert_close(values.flatten(), wanted, rtol=tolerance, atol=tolerance * 10)


GRAD_CAM_ROWS = {
    "conv": ({}, [11.25, 13.5, 20.25, 22.5]),
    "channels": ({"sum_channels": False}, [-3.75, 3, 23.25, 30, 15, 10.5, -3, -7.5]),
    "relu": ({}, [0, 4, 28, 32.5]),
    "input": ({"side": "input"}, (0.5625 * torch.arange(16.0)).tolist()),
}


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_layer_grad_cam(rank: int, spelling: Spelling, lift: Lift) -> None:
    image = IMAGE_K if rank == 2 else IMAGE_K[:, :, None]
    for row, (parameters, expected) in GRAD_CAM_ROWS.items():
        layer = "conv"
        if row == "relu":
            if spelling not in ("module", "shared"):
                continue  # only a module can be tapped
            layer = "relu1" if spelling == "module" else "relu1#0"
        method = {"name": "layer_grad_cam", "layers": [layer], **parameters}
        values, _ = found(ModelK(rank, spelling), image, method, lift)
        near(values, expected, lift.tolerance)


INFLUENCE = {
    "first": ((0.0, 0.0, 0.0), (0.0, 100.0, 0.0)),
    "second": ((0.0, -20.0, 0.0), (0.0, 80.0, 0.0)),
}
INFLUENCE_ROWS = [
    ("first", "midpoint", 500, [0.9, 1, 1, 1]),
    ("second", "midpoint", 500, [0.7, 0.81, 0.81, 0.81]),
    ("first", "gauss_legendre", 500, [0.9005, 1, 1, 1]),
    ("second", "gauss_legendre", 500, [0.7013, 0.8111, 0.8111, 0.8111]),
    ("first", "gauss_legendre", 50, [0.9018, 1, 1, 1]),
    ("second", "gauss_legendre", 50, [0.7109, 0.8161, 0.8161, 0.8161]),
    ("first", "trapezoid", 500, [0.9008, 1, 1, 1]),
    ("second", "trapezoid", 500, [0.7004, 0.8106, 0.8106, 0.8106]),
]


@pytest.mark.parametrize(("row", "quadrature", "steps", "expected"), INFLUENCE_ROWS)
@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 1, 3), (1, 1, 1, 1, 3)])
def test_internal_influence(
    row: str, quadrature: str, steps: int, expected: list[float], shape: tuple[int, ...]
) -> None:
    values = _influence(row, quadrature, steps, shape, "module", Lift())
    near(values, expected, 6e-5)  # the table has four decimals


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 1, 1, 1, 3)])
def test_internal_influence_under_lifts(
    spelling: Spelling, shape: tuple[int, ...], lift: Lift
) -> None:
    if "grad_cam" in lift.company:
        lift = Lift(company=("saliency", "input_x_gradient", "integrated_gradients"))
    values = _influence("second", "midpoint", 500, shape, spelling, lift)
    near(values, [0.7, 0.81, 0.81, 0.81], max(lift.tolerance, 1e-6))


@pytest.mark.parametrize("quadrature", ["gauss_legendre", "left", "right", "midpoint", "trapezoid"])
@pytest.mark.parametrize("steps", [2, 3, 17])
def test_a_unit_open_throughout_has_influence_one(quadrature: str, steps: int) -> None:
    values = _influence("first", quadrature, steps, (1, 3), "module", Lift(dtype=torch.float64))
    near(values[1:], [1, 1, 1], 1e-12)


def _influence(
    row: str, quadrature: str, steps: int, shape: tuple[int, ...], spelling: Spelling, lift: Lift
) -> Tensor:
    baseline, image = (torch.tensor(part).view(shape) for part in INFLUENCE[row])
    method = {
        "name": "internal_influence",
        "layers": ["linear1"],
        "steps": steps,
        "quadrature": quadrature,
        "baseline": baseline[0],
    }
    return found(ModelM(spelling), image, method, lift)[0]


PATH_ROWS = {
    "gauss_legendre": ([1.5, -0.5], 0.0),
    "right": ([1.5, -0.5], 0.0),
    "midpoint": ([1.5, -0.5], 0.0),
    "trapezoid": ([1.5, -0.5], 0.0),
    "left": ([1.44, -0.48], 0.04),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (1, 1, 1, 1, 2)])
def test_integrated_gradients(spelling: Spelling, shape: tuple[int, ...], lift: Lift) -> None:
    if lift.company:
        lift = Lift(company=("saliency", "integrated_gradients"))
    image = torch.tensor([3.0, 1.0]).view(shape)
    for quadrature, (expected, residual) in PATH_ROWS.items():
        method = {"name": "integrated_gradients", "steps": 50, "quadrature": quadrature}
        values, off = found(_Positive(TwoInputs(spelling)), image, method, lift)
        near(values, expected, lift.tolerance)
        assert off == pytest.approx(residual, abs=lift.tolerance)


class _Positive(nn.Module):
    """The score as class 0 of two."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("one", torch.ones(()))  # gives the network a floating type

    def forward(self, image: Tensor) -> Tensor:
        score = self.network(image) * self.one
        return torch.cat([score, -score], dim=1)


NOISE = {
    (1.0, 2.0): [
        (-0.562920, -0.576180),
        (-0.125289, -0.216939),
        (0.424355, 0.346005),
        (-0.158006, -1.057610),
    ],
    (3.0, 4.0): [
        (0.161137, -0.631667),
        (0.174992, 0.154067),
        (0.059921, 0.618829),
        (0.558389, -0.123639),
    ],
}
NOISE_ROWS = {
    "mean": ({"name": "smoothgrad"}, [[2.77042, 8.69881], [31.57396, 48.72127]]),
    "squares": (
        {"name": "smoothgrad", "power": 2},
        [[11.79112, 101.91972], [1011.31046, 2491.67413]],
    ),
    "variance": ({"name": "vargrad"}, [[4.11587, 26.25049], [14.39566, 117.91180]]),
}


@pytest.fixture
def injected(monkeypatch: pytest.MonkeyPatch) -> None:
    def copies(_: GaussianNoise, image: Tensor, key: str) -> Iterator[Tensor]:
        for row in NOISE[tuple(image.flatten().tolist())]:  # type: ignore[index]
            yield image + image.new_tensor(row).view_as(image)

    monkeypatch.setattr(GaussianNoise, "copies", copies)


@pytest.mark.usefixtures("injected")
@pytest.mark.parametrize("row", NOISE_ROWS)
@pytest.mark.parametrize("shape", [(2, 1, 1, 2), (2, 1, 1, 1, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("alone", [True, False])
def test_smoothgrad_with_injected_noise(
    row: str, shape: tuple[int, ...], dtype: torch.dtype, alone: bool
) -> None:
    method, expected = NOISE_ROWS[row]
    network = _Positive(Cubes()).to(dtype)
    images = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=dtype).view(shape)
    spec = {**method, "of": {"name": "saliency", "abs": True}, "samples": 4, "label": "asked"}
    batches = images.split(1) if alone else [images]
    maps = [_class_zero(network, batch, spec) for batch in batches]
    near(torch.cat(maps), [value for pair in expected for value in pair], 1e-5)


EXPECTED_OVER_NOISE = {
    "mean": [3.75, 12.75, 27.75, 48.75],
    "squares": [24.1875, 199.6875, 852.1875, 2521.6875],
    "variance": [10.125, 37.125, 82.125, 145.125],
}


@pytest.mark.parametrize("row", NOISE_ROWS)
def test_smoothgrad_converges_to_its_expectation(row: str) -> None:
    samples = 1500
    images = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(2, 1, 1, 2)
    method = {
        **NOISE_ROWS[row][0],
        "of": {"name": "saliency", "abs": True},
        "samples": samples,
        "sigma": 0.5,  # of a range of 1
        "range": "minmax",
        "label": "asked",
    }
    values = _class_zero(_Positive(Cubes()), images, method).flatten().double()
    expected = torch.tensor(EXPECTED_OVER_NOISE[row], dtype=torch.float64)
    errors = _standard_errors(row, torch.tensor([1.0, 2, 3, 4], dtype=torch.float64), samples)
    assert ((values - expected).abs() < 4 * errors).all()


def _standard_errors(row: str, x: Tensor, samples: int) -> Tensor:
    """Expectation of the statistic of 3 (x + 0.5 z)^2, from many draws."""
    draws = 3 * (x + 0.5 * torch.randn(400_000, 4, dtype=torch.float64)) ** 2
    centered = (draws - draws.mean(0)) ** 2
    per_draw = {"mean": draws, "squares": draws.square(), "variance": centered}[row]
    return per_draw.std(0) / samples**0.5


def _class_zero(network: nn.Module, images: Tensor, method: dict[str, object]) -> Tensor:
    with untouched(network):
        attributions = explain(network, images, method, {"kind": "class_score", "label": 0})
    return attributions["asked"].map
