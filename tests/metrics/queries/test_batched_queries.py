"""Batches of changes, maps and neighbors give what one after the other gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.metrics import evaluate
from voxplain.metrics.context import MetricContext
from voxplain.metrics.families import infidelity, robustness
from voxplain.metrics.queries import subsets
from voxplain.metrics.queries.subsets import NoiseDrops

METHODS: list[Any] = [
    "saliency",
    "input_x_gradient",
    {"name": "integrated_gradients", "steps": 4, "baseline": "minimum"},
    {"name": "smoothgrad", "of": "saliency", "samples": 3},
]
TARGET: dict[str, Any] = {"kind": "volume", "label": 1}


@pytest.fixture(params=[2, 3])
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, dict[str, Any]]:
    torch.manual_seed(0)
    conv = nn.Conv2d if request.param == 2 else nn.Conv3d
    network = nn.Sequential(conv(2, 4, 3, padding=1), nn.Tanh(), conv(4, 2, 3, padding=1))
    network = network.double().eval()
    image = torch.rand(1, 2, *(7,) * request.param, dtype=torch.float64)
    return network, image, explain(network, image, METHODS, TARGET)


def values(case: tuple[nn.Module, Tensor, dict[str, Any]], metric: str) -> dict[str, float]:
    network, image, maps = case
    table = evaluate(network, image, maps, [{"name": metric, "draws": 6}], TARGET, controls=False)
    return {row.method: row.value for row in table}


@pytest.mark.parametrize("metric", ["infidelity", "infidelity_normalized"])
def test_noise_for_all_maps_is_noise_for_each(
    case: tuple[nn.Module, Tensor, dict[str, Any]], metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saliency and input x gradient say the same of a change; the others differ."""
    together = values(case, metric)
    monkeypatch.setattr(infidelity, "_SLOPES_BYTES", 0)
    monkeypatch.setattr(subsets, "_NOISE_BYTES", 0)
    one_by_one = values(case, metric)
    assert together.keys() == one_by_one.keys()
    assert one_by_one == pytest.approx(together, rel=1e-9)
    assert len({round(value, 9) for value in together.values()}) == len(METHODS) - 1


def test_noise_is_drawn_once_for_the_network_and_once_for_all_maps(
    case: tuple[nn.Module, Tensor, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    original = NoiseDrops.noise

    def counted(self: NoiseDrops, context: MetricContext, draw: int) -> Tensor:
        drawn.append(draw)
        return original(self, context, draw)

    monkeypatch.setattr(NoiseDrops, "noise", counted)
    network, image, maps = case
    metrics = [{"name": name, "draws": 6} for name in ("infidelity", "infidelity_normalized")]
    evaluate(network, image, maps, metrics, TARGET, controls=True)
    assert sorted(drawn) == sorted([*range(6), *range(6)])


def test_neighbors_together_are_neighbors_one_by_one(
    case: tuple[nn.Module, Tensor, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    again = robustness.explain_again

    def counted(context: MetricContext, images: Tensor, **options: Any) -> dict[str, Tensor]:
        sizes.append(len(images))
        return again(context, images, **options)

    monkeypatch.setattr(robustness, "explain_again", counted)
    together = values(case, "max_sensitivity")
    monkeypatch.setattr(robustness, "_NEIGHBORS_BYTES", 0)
    one_by_one = values(case, "max_sensitivity")
    assert sizes == [6, *[1] * 6]
    assert one_by_one == pytest.approx(together, rel=1e-9)
    assert len(set(together.values())) == len(METHODS)


@pytest.mark.parametrize("metric", ["max_sensitivity", "relative_output_stability"])
def test_neighbors_are_scored_once(
    case: tuple[nn.Module, Tensor, dict[str, Any]], metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the metric, and for the methods that explain them."""
    original = MetricContext.predict
    sizes: list[int] = []

    def counted(self: MetricContext, images: Tensor, *rest: Any) -> Any:
        sizes.append(len(images))
        return original(self, images, *rest)

    monkeypatch.setattr(MetricContext, "predict", counted)
    values(case, metric)
    assert sum(sizes) == 6


def test_batches_are_halved_when_memory_runs_out(
    case: tuple[nn.Module, Tensor, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = values(case, "infidelity")
    original = MetricContext.predict
    tried: list[int] = []

    def scarce(self: MetricContext, images: Tensor, *rest: Any) -> Any:
        tried.append(len(images))
        if len(images) > 1:
            raise RuntimeError("out of memory")
        return original(self, images, *rest)

    monkeypatch.setattr(MetricContext, "predict", scarce)
    assert values(case, "infidelity") == pytest.approx(expected, rel=1e-9)
    assert max(tried) > 1
