"""The thirteen MONAI networks under LRP."""

import pytest
import torch
from matrix import MATRIX, image, network, score
from relevance import run_lrp
from rule_passes import RULES, relative, run_pass

from voxplain.attribution.audit import audit
from voxplain.engine.rules import Lrp

CASES = [
    *((name, composite) for name in MATRIX for composite in ("epsilon", "epsilon_gamma_box")),
    *((name, "epsilon_plus") for name in ("UNet", "UNETR", "SEResNet50")),
    *((name, "alpha2_beta1") for name in ("UNet", "UNETR", "SEResNet50")),
]
HEAVY = [name for name, row in MATRIX.items() if row.heavy]


@pytest.mark.parametrize(("name", "composite"), CASES)
def test_relevance_of_image_biases_and_stabilizers_adds_up_to_the_score(name, composite):
    net, x = network(name, 2).double(), image(name, 2, light=True).double()
    plain = net(x).detach()
    result = run_lrp(net, x, Lrp(composite=composite), score)
    assert result.residual <= 1e-8
    assert relative(result.output, plain) <= 1e-6
    assert result.output_relevance == pytest.approx(float(score(plain).sum()), rel=1e-9)
    assert float(result.relevance.abs().max()) > 1e-3 * abs(result.output_relevance) / x.numel()
    assert result.warnings == []
    if composite in (
        "epsilon",
        "epsilon_gamma_box",
    ):  # others lose relevance of units without contributions
        assert abs(result.epsilon) <= 1e-3 * abs(result.output_relevance)


@pytest.mark.parametrize("name", MATRIX)
def test_the_audit_covers_every_network(name):
    result = audit(network(name, 2), image(name, 2, light=True), ("lrp",))
    assert result.covered("lrp")
    assert result.conservation["lrp"] <= 1e-4
    assert result.forward_difference["lrp"] <= 1e-6
    assert result.remarks["lrp"] == ()


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in HEAVY else ()) for n in MATRIX],
)
def test_three_d_in_float32(name):
    net, x = network(name), image(name, light=True)
    plain = run_pass(net, x, RULES["plain"], score=score)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    result = run_lrp(net, x, Lrp(), score)
    assert result.residual <= 1e-4
    assert relative(result.output, plain.output) <= 1e-6
    again = run_pass(net, x, RULES["plain"], score=score)
    assert torch.equal(again.gradient, plain.gradient)
    assert all(torch.equal(state[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize("name", MATRIX)
def test_a_batch_of_four_is_four_times_one(name):
    net, x = network(name, 2).double(), image(name, 2, batch=4, light=True).double()
    together = run_lrp(net, x, Lrp(), score)
    for i in (0, 3):
        alone = run_lrp(net, x[i : i + 1], Lrp(), score).relevance
        assert relative(together.relevance[i : i + 1], alone) <= 1e-5
    assert together.residual <= 1e-8


@pytest.mark.parametrize("name", MATRIX)
def test_the_same_map_twice_and_after_any_other_rule(name):
    net, x = network(name, 2), image(name, 2, light=True)
    first = run_lrp(net, x, Lrp(), score)
    for rule in ("plain", "guided"):
        run_pass(net, x, RULES[rule], score=score)
    again = run_lrp(net, x, Lrp(), score)
    assert torch.equal(first.relevance, again.relevance)
    assert first.treated == again.treated


@pytest.mark.parametrize("name", ["SegResNet", "AttentionUnet", "ResNet10"])
def test_one_slice_three_d_runs_conserve(name):
    net = network(name).double()
    thin = image(name, 2, light=True).double()[..., None]
    assert run_lrp(net, thin, Lrp(), score).residual <= 1e-8
