"""Maps of windows whose output has another resolution, against one graph through all windows."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from networks import assert_close, untouched
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.models.model import Model
from voxplain.targets import UnperturbedOutput, WeightField, parse_target

every_rank = pytest.mark.parametrize("rank", [2, 3])
every_scale = pytest.mark.parametrize("scale", [0.5, 2.0])
SIZE = 6
SHAPES = {2: (10, 8), 3: (10, 6, 8)}
EXACT = 1e-9


def network_of(rank: int, scale: float) -> nn.Module:
    """Two classes at half or at double resolution; instance norm makes windows matter."""
    torch.manual_seed(3)
    conv, turned = getattr(nn, f"Conv{rank}d"), getattr(nn, f"ConvTranspose{rank}d")
    last = conv(3, 2, 3, 2, 1) if scale < 1 else turned(3, 2, 2, 2)
    network = nn.Sequential(
        conv(1, 3, 3, padding=1), getattr(nn, f"InstanceNorm{rank}d")(3), nn.Tanh(), last
    )
    return network.double().eval()


def image_of(rank: int) -> Tensor:
    torch.manual_seed(5)
    return torch.randn(1, 1, *SHAPES[rank], dtype=torch.float64)


def blended(network: nn.Module, image: Tensor, scale: float, blend: str) -> Tensor:
    """The output by hand: windows 4 voxels apart, each with its weights, over their sum."""
    side = round(SIZE * scale)
    bell = torch.ones(SIZE, dtype=torch.float64)
    if blend == "gaussian":
        offset = torch.arange(SIZE, dtype=torch.float64) - (SIZE - 1) / 2
        bell = torch.exp(-0.5 * (offset / (SIZE / 8)) ** 2)
    rank = image.ndim - 2
    weights = bell
    for _ in range(rank - 1):
        weights = weights[..., None] * bell
    weights = weights.clamp_min(1e-3)
    weights = nn.functional.interpolate(
        weights[None, None], size=(side,) * rank, mode="nearest-exact"
    )
    cells = [round(length * scale) for length in image.shape[2:]]
    total, count = torch.zeros(1, 2, *cells).double(), torch.zeros(1, 1, *cells).double()
    axes = [sorted({*range(0, length - SIZE, 4), length - SIZE}) for length in image.shape[2:]]
    for starts in itertools.product(*axes):
        window = image[(..., *(slice(start, start + SIZE) for start in starts))]
        begins = [round(start * scale) for start in starts]
        box = (..., *(slice(begin, begin + side) for begin in begins))
        placed, weight = torch.zeros_like(total), torch.zeros_like(count)
        placed[box], weight[box] = network(window) * weights, weights
        total, count = total + placed, count + weight
    return total / count


def targets(rank: int) -> list[dict[str, Any]]:
    box = ((1, 4), (1, 3), (0, 3))[:rank]  # in cells of the output
    region = {"kind": "region", "label": 1, "box": box}
    probability = {"kind": "pixelwise", "label": 0, "link": "probability"}
    return [
        region,
        {"kind": "volume", "label": 1},
        {"kind": "contrast", "a": region, "b": probability},
    ]


def bound(model: Model, target: dict[str, Any], output: Tensor, image: Tensor) -> WeightField:
    layout = model.layout(image[0])
    assert layout is not None
    shape = tuple(image.shape[2:])
    return parse_target(target).bind(
        UnperturbedOutput(output, input_shape=shape, place=layout.place)
    )


@every_rank
@every_scale
@pytest.mark.parametrize("blend", ["gaussian", "constant"])
@pytest.mark.parametrize("which", range(3))
def test_maps_are_those_of_one_graph(rank: int, scale: float, blend: str, which: int) -> None:
    network, image = network_of(rank, scale), image_of(rank)
    window = {"size": SIZE, "overlap": 0.3, "blend": blend, "batch": 2}  # steps of 4 voxels
    model, target = Model(network, window=window), targets(rank)[which]
    with torch.no_grad():
        output = blended(network, image, scale, blend)
        assert_close(model.output(image), output, EXACT)
    field = bound(model, target, output, image)

    def score(point: Tensor) -> Tensor:
        return field.score(blended(network, point, scale, blend))

    occlusion = {"name": "occlusion", "window": 4, "stride": 4, "fill": 0.0}
    path = {"name": "integrated_gradients", "steps": 2, "quadrature": "midpoint", "baseline": 0.2}
    with untouched(network):
        maps = explain(model, image, ["saliency", path, occlusion], target)
    leaf = image.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(score(leaf).sum(), leaf)
    assert_close(maps["saliency"].map, gradient, EXACT)
    baseline, along = torch.full_like(image, 0.2), torch.zeros_like(image)
    for share in (0.25, 0.75):
        point = (baseline + share * (image - baseline)).requires_grad_(True)
        along += torch.autograd.grad(score(point).sum(), point)[0] / 2 * (image - baseline)
    assert_close(maps["integrated_gradients"].map, along, EXACT)
    with torch.no_grad():
        for starts in ((0,) * rank, (4,) * rank):
            hidden = image.clone()
            hidden[(..., *(slice(start, start + 4) for start in starts))] = 0
            drop = float(score(image) - score(hidden))
            found = float(maps["occlusion"].map[(0, 0, *starts)])
            assert found == pytest.approx(drop, rel=1e-8, abs=1e-10)
    assert maps["saliency"].stats.scores == pytest.approx(score(image).tolist())


METHODS: list[Any] = [
    "saliency",
    "deep_lift",
    {"name": "integrated_gradients", "steps": 2},
    {"name": "occlusion", "window": 3, "stride": 3, "fill": 0.0},
    {"name": "rise", "samples": 8},
    {"name": "grad_cam", "layer": "2"},
    {"name": "layer_activation", "layers": "2"},
]


@every_rank
@every_scale
def test_one_window_over_everything_is_the_whole(rank: int, scale: float) -> None:
    network, image = network_of(rank, scale), image_of(rank)
    model = Model(network, window={"size": SHAPES[rank]})
    for target in targets(rank)[1:]:
        windowed = explain(model, image, METHODS, target)
        whole = explain(network, image, METHODS, target)
        for key, attribution in whole.items():
            assert_close(windowed[key].map, attribution.map, EXACT, key)
            assert windowed[key].stats.scores == pytest.approx(attribution.stats.scores)


@every_scale
def test_a_padded_image_and_its_gradient(scale: float) -> None:
    """The padding of one voxel before and two behind lies between cells at half resolution."""
    network = network_of(2, scale)
    image = torch.randn(1, 1, 3, 6, dtype=torch.float64, requires_grad=True)
    padded = nn.functional.pad(image, (0, 0, 1, 2), value=0.4)
    output = network(padded)
    rows = slice(0, 2) if scale < 1 else slice(2, 8)  # 1/2 and 2 are rounded to even cells
    expected = output[:, 1, rows].sum()
    (gradient,) = torch.autograd.grad(expected, image)
    model = Model(network, window={"size": 6, "padding_value": 0.4})
    with pytest.warns(match="padded with the value 0.4, half on either side"):
        found = explain(model, image.detach(), "saliency", {"kind": "class_score", "label": 1})
    mean_or_sum = float(found["saliency"].stats.scores[0] / expected.detach())
    assert_close(found["saliency"].map, gradient * mean_or_sum, EXACT)
    layout = model.layout(image.detach()[0])
    assert layout is not None
    assert layout.place.start[0] == (-1.0 if scale < 1 else -0.25)
