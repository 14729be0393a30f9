"""Shapley values and LIME against captum, with the same draws."""

from __future__ import annotations

from typing import Any

import captum.attr as peer
import pytest
import torch
from captum._utils.models.linear_model import SkLearnLasso
from captum.attr._core.lime import get_exp_kernel_similarity_function
from captum_cases import Case, build, every_case
from networks import assert_close
from torch import Tensor, nn

from voxplain.engine.masks.coalition_designs import Bernoulli, ShapleyKernel, Walks
from voxplain.regions import Blocks


def _regions(image: Tensor) -> Tensor:
    """Blocks of half the image, ``(*spatial)``: 4 or 8 of them."""
    return Blocks(size=3).divide(image, None, None).labels


@every_case
def test_captum_lime(task: str, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = build(task, rank)
    labels = _regions(case.images[0])
    design = _drawn(40, int(labels.max()) + 1)
    monkeypatch.setattr(Bernoulli, "design", lambda *_: design)

    def attribute(network: nn.Module, image: Tensor) -> Tensor:
        spec = peer.Lime(
            network,
            SkLearnLasso(alpha=2e-4),
            similarity_func=get_exp_kernel_similarity_function("cosine", 0.6),
            perturb_func=_injected(design),
        )
        return _of_captum(spec, image, labels, len(design))

    method = {"surrogate": "lasso", "penalty": 2e-4, "width": 0.6, "distance": "image"}
    _compare(case, {"name": "lime", **method}, attribute, 2e-4)


@every_case
def test_captum_kernel_shap(task: str, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captum weights the ends 1e6; here they hold exactly."""
    case = build(task, rank)
    labels = _regions(case.images[0])
    count = int(labels.max()) + 1
    drawn = ShapleyKernel(Blocks(), 2 ** (count - 1)).design(count, "key")[1:]
    design = torch.cat([torch.zeros(1, count), drawn])
    monkeypatch.setattr(ShapleyKernel, "design", lambda *_: design)

    def attribute(network: nn.Module, image: Tensor) -> Tensor:
        spec = peer.KernelShap(network)
        spec.perturb_func = _injected(torch.cat([torch.ones(1, count), design]))
        return _of_captum(spec, image, labels, len(design) + 1)

    _compare(case, {"name": "kernel_shap"}, attribute, 1e-4)


@every_case
def test_captum_shapley_value_sampling(
    task: str, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = build(task, rank)
    labels = _regions(case.images[0])
    orders = Walks(Blocks(), 6).orders(int(labels.max()) + 1, "key")
    monkeypatch.setattr(Walks, "orders", lambda *_: orders)

    def attribute(network: nn.Module, image: Tensor) -> Tensor:
        spec = peer.ShapleyValueSampling(network)
        spec.permutation_generator = lambda *_: iter(orders.tolist())
        return _of_captum(spec, image, labels, len(orders))

    _compare(case, {"name": "shapley_value_sampling"}, attribute, 1e-5)


@every_case
def test_captum_shapley_values(task: str, rank: int) -> None:
    if rank == 3:
        pytest.skip("8! orders take captum minutes")
    case = build(task, rank)
    labels = _regions(case.images[0])
    exact = lambda net, image: _of_captum(peer.ShapleyValues(net), image, labels, None)  # noqa: E731
    for name in ("shapley_exact", "kernel_shap", "shapley_value_sampling"):
        _compare(case, {"name": name}, exact, 1e-5)


def _drawn(rows: int, count: int) -> Tensor:
    source = torch.Generator().manual_seed(2)
    return (torch.rand(rows, count, generator=source) < 0.5).float()


def _injected(design: Tensor) -> Any:
    def generator(*_: object, **__: object) -> Any:
        for row in design.long():
            yield row[None]

    return generator


def _of_captum(spec: Any, image: Tensor, labels: Tensor, samples: int | None) -> Tensor:
    options = {} if samples is None else {"n_samples": samples}
    mask = labels.expand(image.shape).contiguous()
    return spec.attribute(image, baselines=0.1, target=0, feature_mask=mask, **options)


def _compare(case: Case, method: dict[str, Any], attribute: Any, tolerance: float) -> None:
    """Captum repeats its map on every channel of a region."""
    spec = {"regions": {"kind": "blocks", "size": 3}, "fill": 0.1, **method}
    for actual, expected in zip(case.ours(spec), case.captum(attribute), strict=True):
        assert_close(actual.expand_as(expected), expected, tolerance, str(method["name"]))
