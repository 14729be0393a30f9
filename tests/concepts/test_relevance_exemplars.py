"""Cases by relevance: closed forms on linear heads, conservation, windows, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from planted import Pointwise, backwards, noise_cohort, one_slice
from torch import Tensor, nn

from voxplain.concepts.case_contexts import CaseContexts
from voxplain.concepts.relevance_exemplars import (
    relevance_exemplars,
    relevance_map,
    unit_relevance,
)
from voxplain.engine.taps import Tap
from voxplain.errors import ModelError, TargetError
from voxplain.models.model import Model
from voxplain.targets import parse_target

WEIGHTS = torch.tensor([[1.0, -2.0, 0.5, 0.0], [0.0, 1.0, 3.0, -1.0]])


class Mystery(torch.autograd.Function):
    """Doubles; no backward rule knows it."""

    @staticmethod
    def forward(ctx, value):
        return 2 * value

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class Doubled(Pointwise):
    """A linear head behind a function without a rule."""

    def forward(self, image: Tensor) -> Tensor:
        return self.head(Mystery.apply(self.layer(image))).flatten(2).mean(dim=2)


def ranked(values: dict[str, float], sign: float) -> list[str]:
    return sorted(values, key=lambda case: (-sign * values[case], case))[:3]


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("label", [0, 1])
def test_the_order_is_that_of_activation_times_weight(rank, dense, label) -> None:
    cohort = noise_cohort(7, shape=(8, 8, 4)[:rank])
    network = Pointwise(WEIGHTS, rank, dense)
    target = {"kind": "class_score", "label": label}
    found = relevance_exemplars(network, cohort, ["layer"], target)
    assert found.rule == "lrp"
    for unit, weight in enumerate(WEIGHTS[label].tolist()):
        sums = {case.id: float(case.image.data[unit].double().sum()) for case in cohort}
        scale = 1 if dense else 1 / cohort["case0"].image.data[0].numel()
        exact = {case: scale * weight * value for case, value in sums.items()}
        own = found.of("layer", unit)
        near = pytest.approx(
            [exact[each.case] for each in own.top], abs=2e-3 * 256**dense, rel=1e-3
        )
        assert [each.value for each in own.top] == near
        if weight:
            assert [each.case for each in own.top] == ranked(exact, 1)
            assert [each.case for each in own.bottom] == ranked(exact, -1)
            by_activation = ranked(sums, 1)
            assert ([each.case for each in own.top] == by_activation) is (weight > 0)


def test_a_unit_that_the_class_does_not_read_has_no_relevance_whatever_its_activation() -> None:
    cohort = noise_cohort(5)
    own = relevance_exemplars(Pointwise(WEIGHTS), cohort, ["layer"], 0).of("layer", 3)
    assert own.mean == 0
    assert own.rank == 4


def test_the_relevance_of_the_units_of_a_layer_is_the_score() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(4, 6, 3, padding=1, bias=False)
    head = nn.Conv2d(6, 2, 1, bias=False)
    network = nn.Sequential(convolution, nn.ReLU(), head, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    contexts, target = CaseContexts(network), parse_target(1)
    for case in noise_cohort(3):
        relevance = unit_relevance(contexts.open(case), ("0", "1"), target, "lrp")
        score = float(network(case.image.data[None]).detach()[0, 1])
        for values in relevance.values():
            assert float(values.double().sum()) == pytest.approx(score, rel=1e-3)


def test_windows_add_up_to_the_whole() -> None:
    cohort = noise_cohort(3, shape=(12, 10))
    network = Pointwise(WEIGHTS, dense=True)
    target = {"kind": "class_score", "label": 1}
    whole = relevance_exemplars(network, cohort, ["layer"], target)
    model = Model(network, window={"size": (8, 8), "overlap": 0.5})
    windowed = relevance_exemplars(model, cohort, ["layer"], target)
    for one, other in zip(whole.units, windowed.units, strict=True):
        assert [each.case for each in one.top] == [each.case for each in other.top]
        assert other.mean == pytest.approx(one.mean, rel=2e-3, abs=1e-4)
    case, tap = cohort["case0"], Tap("layer")
    maps = [
        relevance_map(CaseContexts(each), case, tap, 2, parse_target(target), "lrp")
        for each in (network, model)
    ]
    torch.testing.assert_close(maps[1], maps[0], rtol=5e-3, atol=1e-2)


def test_a_volume_of_one_slice_equals_the_image() -> None:
    cohort = noise_cohort(4)
    flat = relevance_exemplars(Pointwise(WEIGHTS), cohort, ["layer"], 1)
    deep = relevance_exemplars(Pointwise(WEIGHTS, 3), one_slice(cohort), ["layer"], 1)
    for one, other in zip(flat.units, deep.units, strict=True):
        assert [each.case for each in one.top] == [each.case for each in other.top]
        assert other.mean == pytest.approx(one.mean, abs=1e-6)


def test_the_order_of_cases_changes_nothing_and_the_network_stays() -> None:
    cohort, network = noise_cohort(5), Pointwise(WEIGHTS)
    before = copy.deepcopy(network.state_dict())
    found = relevance_exemplars(network, cohort, ["layer"], 1)
    again = relevance_exemplars(network, backwards(cohort), ["layer"], 1)
    assert found.units == again.units
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_without_a_rule_activation_times_gradient_is_taken_and_said() -> None:
    cohort = noise_cohort(4)
    found = relevance_exemplars(Doubled(WEIGHTS), cohort, ["layer"], 1)
    assert found.rule == "activation x gradient"
    assert "Mystery" in found.reason
    exact = {case.id: 2 * 3 * float(case.image.data[2].mean()) for case in cohort}
    own = found.of("layer", 2)
    assert [each.case for each in own.top] == ranked(exact, 1)
    assert own.top[0].value == pytest.approx(max(exact.values()), rel=1e-5)


def test_cases_without_the_class_are_left_out() -> None:
    """Pixelwise, of class 1: where the image is negative everywhere nothing of it is predicted."""
    cohort = noise_cohort(3, channels=1)
    cohort["case1"].image.data.abs_().neg_().sub_(1)
    network = Pointwise(torch.tensor([[0.0], [1.0]]), dense=True)
    found = relevance_exemplars(network, cohort, ["layer"], "pixelwise:1")
    assert found.cases == ("case0", "case2")
    assert found.left_out == ("case1",)
    for case in cohort:
        case.image.data.abs_().neg_().sub_(1)
    with pytest.raises(TargetError, match="no case has anything to explain"):
        relevance_exemplars(network, cohort, ["layer"], "pixelwise:1")


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match="layer"):
        relevance_exemplars(Pointwise(WEIGHTS), noise_cohort(2), ["later"], 1)
