"""Shapley values and LIME of model M by hand, under variations that must not change them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from networks import SPELLINGS, ModelM, Spelling, untouched
from torch import Tensor

from voxplain.attribution import Attribution, explain
from voxplain.engine.memory import ForwardBudget

IMAGE = torch.tensor([20.0, 50.0, 30.0])
EACH, PAIR, OTHER = torch.tensor([1, 2, 3]), torch.tensor([1, 1, 2]), torch.tensor([2, 2, 1])
SHAPLEY = {"each": (76.666667, 196.666667, 116.666667), "pair": (275, 275, 115)}
LASSO = {"each": (73.504, 193.500, 113.502), "pair": (271.001, 271.001, 111.004)}
SAMPLED = {"each": (73.37, 193.33, 113.33), "pair": (271, 271, 111)}
INTERCEPTS = {"each": 2.9995, "pair": 3.5001}
LABELS = {"each": EACH, "pair": PAIR, "pair, other numbers": OTHER}
every_division = pytest.mark.parametrize("division", LABELS)
CAPTUM: dict[str, Any] = {
    "name": "lime",
    "samples": 500,
    "distance": "image",
    "surrogate": "lasso",
    "penalty": 1.0,
    "width": 10.0,
}
EXACT = ("shapley_value_sampling", "shapley_exact", "kernel_shap")


@dataclass(frozen=True)
class Lift:
    """A variation of the call with the same map."""

    rank: int = 2
    dtype: torch.dtype = torch.float32
    batch: Callable[[Tensor], Tensor] = lambda image: image
    row: int = 0
    company: tuple[str, ...] = ()
    tolerance: float = 1e-5


def _in_company(image: Tensor) -> Tensor:
    others = torch.rand(7, *image.shape[1:], generator=torch.Generator().manual_seed(1)) * 60
    return torch.cat([others[:5].to(image), image, others[5:].to(image)])


def _strided(image: Tensor) -> Tensor:
    wide = torch.full((*image.shape[:-1], 6), 99.0).to(image)
    wide[..., ::2] = image
    return wide[..., ::2]


LIFTS = {
    "alone": Lift(),
    "volume": Lift(rank=3),
    "float64": Lift(dtype=torch.float64, tolerance=1e-6),
    "batch of 8": Lift(rank=3, batch=_in_company, row=5),
    "channels last": Lift(
        rank=3, batch=lambda image: image.contiguous(memory_format=torch.channels_last_3d)
    ),
    "not contiguous": Lift(batch=_strided),
    "shared stream": Lift(company=("feature_ablation", "shapley_exact", "saliency")),
}
every_lift = pytest.mark.parametrize("lift", LIFTS.values(), ids=LIFTS)


def _asked(method: str | dict[str, Any], labels: Tensor, rank: int) -> dict[str, Any]:
    own = {"name": method} if isinstance(method, str) else method
    shaped = labels.view(*(1,) * (rank - 1), 3)
    return {"regions": {"kind": "labels", "labels": shaped}, "fill": 0, "label": "asked", **own}


def _explained(
    method: str | dict[str, Any], labels: Tensor, lift: Lift, spelling: Spelling = "module"
) -> Attribution:
    image = lift.batch(IMAGE.view(1, 1, *(1,) * (lift.rank - 1), 3).to(lift.dtype))
    network = ModelM(spelling).to(lift.dtype).eval()
    spec = _asked(method, labels, lift.rank)
    company = [
        name if name == "saliency" else {**_asked(name, labels, lift.rank), "label": name}
        for name in lift.company
    ]
    with untouched(network):
        return explain(network, image, [spec, *company], 0)["asked"][lift.row]


@every_division
@every_lift
@pytest.mark.parametrize("method", EXACT)
def test_shapley_values(division: str, lift: Lift, method: str) -> None:
    actual = _explained(method, LABELS[division], lift)
    expected = SHAPLEY[division.split(",")[0]]
    assert actual.map.flatten().tolist() == pytest.approx(expected, rel=lift.tolerance)
    assert actual.stats.completeness == pytest.approx((0,), abs=1e-6)
    assert actual.stats.baseline_scores == pytest.approx((2.0,))


@every_division
@pytest.mark.parametrize("method", EXACT)
def test_exact_to_rounding_in_float64(division: str, method: str) -> None:
    actual = _explained(method, LABELS[division], Lift(dtype=torch.float64))
    pair = division != "each"
    expected = [275.0, 275, 115] if pair else [230 / 3, 590 / 3, 350 / 3]
    assert actual.map.flatten().tolist() == pytest.approx(expected, rel=1e-10)


@every_division
@every_lift
def test_lime_over_all_coalitions(division: str, lift: Lift) -> None:
    actual = _explained(CAPTUM, LABELS[division], lift)
    name = division.split(",")[0]
    assert actual.map.flatten().tolist() == pytest.approx(LASSO[name], abs=1e-3)
    assert actual.map.flatten().tolist() == pytest.approx(SAMPLED[name], abs=1)
    findings = actual.stats.findings[0]
    assert findings["intercept"] == pytest.approx(INTERCEPTS[name], abs=1e-4)
    assert 0.99 < findings["r2"] < 1


def test_lime_over_sampled_coalitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """500 sampled coalitions, as for more regions."""
    from voxplain.engine.masks.coalition_designs import Bernoulli

    def drawn(self: Bernoulli, count: int, key: str) -> Tensor:
        source = torch.Generator().manual_seed(4)
        return (torch.rand(500, count, generator=source) < 0.5).float()

    monkeypatch.setattr(Bernoulli, "design", drawn)
    actual = _explained(CAPTUM, EACH, Lift())
    assert actual.map.flatten().tolist() == pytest.approx(SAMPLED["each"], abs=1)
    assert actual.stats.passes == 7


@pytest.mark.parametrize("surrogate", ["ridge", "lasso"])
@pytest.mark.parametrize(
    ("width", "expected", "intercept"),
    [(1.0, (78.1311, 197.9237, 118.0394), -4.0004), (1e6, (77.5, 197.5, 117.5), -3.0)],
)
def test_lime_without_penalty(
    surrogate: str, width: float, expected: tuple[float, ...], intercept: float
) -> None:
    spec = {**CAPTUM, "surrogate": surrogate, "penalty": 0, "width": width}
    actual = _explained(spec, EACH, Lift(dtype=torch.float64))
    assert actual.map.flatten().tolist() == pytest.approx(expected, abs=1e-4)
    assert actual.stats.findings[0]["intercept"] == pytest.approx(intercept, abs=1e-4)


@pytest.mark.parametrize("method", EXACT)
def test_shapley_values_of_a_batch(method: str) -> None:
    batch = torch.tensor([[2.0, 10, 3], [20, 50, 30]]).view(2, 1, 1, 3)
    spec = {"name": method, "regions": {"kind": "blocks", "size": 1}, "fill": 0}
    actual = explain(ModelM().eval(), batch, spec, 0)[method].map.flatten(1).tolist()
    assert actual[0] == pytest.approx([7, 32.5, 10.5], rel=1e-5)
    assert actual[1] == pytest.approx(SHAPLEY["each"], rel=1e-5)


@pytest.mark.parametrize("size", [1, 3, 64])
@pytest.mark.parametrize("method", [*EXACT, CAPTUM], ids=str)
def test_perturbation_batch_size(
    size: int, method: str | dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fixed(ForwardBudget):
        def __init__(self, *_: object) -> None:
            self.size, self._is_measured = size, True

    monkeypatch.setattr("voxplain.engine.execution.masked_runner.ForwardBudget", Fixed)
    actual = _explained(method, EACH, Lift(rank=3)).map.flatten().tolist()
    expected = LASSO["each"] if isinstance(method, dict) else SHAPLEY["each"]
    assert actual == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings(spelling: Spelling) -> None:
    actual = _explained("kernel_shap", EACH, Lift(), spelling)
    assert actual.map.flatten().tolist() == pytest.approx(SHAPLEY["each"], rel=1e-5)
