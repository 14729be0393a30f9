"""Curved paths: guided and blur integrated gradients, and paths that depend on gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from networks import Linear, assert_close, classifier, images, segmenter
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.engine.blur import blurred, isotropic_sigma
from voxplain.engine.gradients.path_samplers import BlurPath, GuidedPath
from voxplain.engine.stream_io import StreamInput
from voxplain.errors import ConfigError
from voxplain.models.model import Model

EXACT = 1e-11
GUIDED, BLUR = "guided_integrated_gradients", "blur_integrated_gradients"
every_rank = pytest.mark.parametrize("rank", [2, 3])


def published(
    network: nn.Module, image: Tensor, label: int, steps: int, fraction: float, distance: float
) -> Tensor:
    """Guided integrated gradients as its paper has them, feature by feature and in NumPy.

    At each step the features of least gradient move toward the end of the band around the
    straight path, until the distance to the image is that of the straight path.
    """

    def gradient(point: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        leaf = torch.from_numpy(point).view_as(image).requires_grad_(True)
        (slope,) = torch.autograd.grad(network(leaf[None])[0, label], leaf)
        return slope.numpy().ravel()

    end = image.numpy().ravel()
    point, total = np.zeros_like(end), np.abs(end).sum()
    map = np.zeros_like(end)
    for step in range(steps):
        slope = gradient(point)
        free = np.abs(slope)
        alpha = (step + 1) / steps
        low, high = max(alpha - distance, 0) * end, min(alpha + distance, 1) * end
        target, gamma = total * (1 - alpha), np.inf
        while gamma > 1:
            before = point.copy()
            behind = np.abs(point) < np.abs(low)
            point[behind] = low[behind]
            gap = np.abs(end - point).sum() - target
            if gap <= 1e-12 * total:
                map += (point - before) * slope
                break
            free[np.isclose(point, high, rtol=0, atol=1e-14)] = np.inf
            bound = np.sort(free)[int(fraction * len(free)) - 1]
            chosen = (free <= bound) & np.isfinite(free)
            reach = np.abs(high - point)[chosen].sum()
            gamma = gap / reach if reach > 0 else np.inf
            point[chosen] += min(gamma, 1) * (high - point)[chosen]
            map += (point - before) * slope
    return torch.from_numpy(map).view_as(image)


@every_rank
@pytest.mark.parametrize(("steps", "distance"), [(7, 0.02), (12, 0.1), (20, 1.0)])
def test_guided_paths_are_the_published_ones(rank: int, steps: int, distance: float) -> None:
    network, shown = classifier(rank, 2).double(), images(rank, 2, 1).double()
    method = {"name": GUIDED, "steps": steps, "max_distance": distance, "quadrature": "left"}
    attribution_map = explain(network, shown, method, 1)[GUIDED].map[0]
    assert_close(attribution_map, published(network, shown[0], 1, steps, 0.25, distance), 1e-9)


@every_rank
@pytest.mark.parametrize("build", [classifier, segmenter])
def test_guided_paths_are_complete(rank: int, build: Any) -> None:
    network, shown = build(rank, 2, act=nn.Softplus).double(), images(rank, 2, 2).double()
    residuals = []
    for steps in (4, 16, 64):
        stats = explain(network, shown, {"name": GUIDED, "steps": steps}, 1)[GUIDED].stats
        residuals.append(max(stats.completeness or [1.0]))
    assert residuals[2] < residuals[0] / 4
    assert residuals[2] < 5e-3


@pytest.mark.parametrize("method", [GUIDED, BLUR])
@every_rank
def test_linear_scores_have_a_closed_form(method: str, rank: int) -> None:
    """w (x - b), whatever the path from b to x."""
    shown = images(rank, 1, 2).double()
    network = Linear(tuple(shown.shape[1:])).double()
    start = torch.zeros_like(shown)
    if method == BLUR:
        start = torch.stack([blurred(image, [0.2 * 6] * rank) for image in shown])
    attribution = explain(network, shown, {"name": method, "steps": 3}, 1)[method]
    assert_close(attribution.map, network.weight.detach() * (shown - start), EXACT)
    assert max(attribution.stats.completeness or [1.0]) < EXACT
    expected = network(start).flatten().tolist()
    assert list(attribution.stats.baseline_scores or ()) == pytest.approx(expected)


def test_an_equal_image_and_baseline_give_zero() -> None:
    network = classifier(2, 1).double()
    zeros = torch.zeros(1, 1, 6, 6, dtype=torch.float64)
    attribution = explain(network, zeros, {"name": GUIDED, "steps": 3}, 1)[GUIDED]
    assert not attribution.map.any()


def test_guided_points_stay_near_the_straight_path() -> None:
    image = images(2, 2, 1)[0].double()
    route = GuidedPath(10, 0.25, 0.07).route(StreamInput(image, 0, "key"))
    source = torch.Generator().manual_seed(0)
    total, before = float(image.abs().sum()), torch.zeros_like(image)
    for index in range(route.count):
        point = route.draw(range(index, index + 1)).inputs[0]
        share = point / image
        assert float((share - index / 10).abs().max()) <= 0.07 + 1e-12
        assert float((image - point).abs().sum()) == pytest.approx(total * (1 - index / 10))
        assert bool((share >= before - 1e-12).all())
        before = share
        assert route.feedback is not None
        route.feedback(
            torch.zeros(1), torch.randn(1, *image.shape, generator=source, dtype=image.dtype)
        )
    assert torch.equal(point, image)


@every_rank
def test_blur_paths_are_complete(rank: int) -> None:
    network, shown = classifier(rank, 2, act=nn.Softplus).double(), images(rank, 2, 2).double()
    coarse, fine = (
        max(explain(network, shown, {"name": BLUR, "steps": n}, 1)[BLUR].stats.completeness or [1])
        for n in (8, 64)
    )
    assert fine < 2e-4
    assert fine < coarse / 16  # the trapezoid rule is of second order


def test_blurs_are_isotropic_in_millimeters() -> None:
    assert isotropic_sigma(0.5, (10, 20), None) == (5, 5)
    assert isotropic_sigma(0.5, (10, 20, 5), (1, 1, 4)) == (5, 5, 1.25)
    assert isotropic_sigma(0.5, (1, 20), None)[1] == 10
    image = torch.zeros(1, 31, 31)
    image[0, 15, 15] = 1
    spread = blurred(image, (2.0, 4.0))[0].double()
    along = torch.arange(31.0, dtype=torch.float64) - 15
    for axis, sigma in ((0, 2.0), (1, 4.0)):
        profile = spread.sum(1 - axis)
        assert float(profile.sum()) == pytest.approx(1, rel=1e-3)
        assert float((profile * along**2).sum()) == pytest.approx(sigma**2, rel=0.03)
    first = BlurPath(4, 0.2, (1, 2)).route(StreamInput(images(2, 1, 1)[0], 0, "key")).draw(range(1))
    assert_close(first.inputs[0], blurred(images(2, 1, 1)[0], (1.2, 0.6)))


def test_a_blur_needs_axes() -> None:
    with pytest.raises(ConfigError, match="spatial axes"):
        explain(nn.Linear(4, 2), torch.rand(1, 4), BLUR, 1)


@pytest.mark.parametrize("method", [GUIDED, BLUR])
def test_windows_take_the_path_of_the_whole_image(method: str) -> None:
    """A network without context past its voxel is the same in windows and whole."""
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Softplus(), nn.Conv2d(4, 2, 1)).double()
    shown = images(2, 1, 1).double()
    windowed = Model(network, window={"size": 4, "overlap": 0.5})
    target = {"kind": "volume", "label": 1}
    declaration = {"name": method, "steps": 6}
    whole, windowed_map = (
        explain(model, shown, declaration, target)[method].map for model in (network, windowed)
    )
    assert_close(windowed_map, whole, 1e-9)
