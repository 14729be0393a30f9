"""The thirteen MONAI networks under LRP."""

import pytest
import torch
from matrix import MATRIX, image, network, score
from relevance import propagated
from rule_passes import RULES, passed, relative

from voxplain.attribution.audit import audit
from voxplain.engine.rules import Lrp

CASES = [
    *((name, composite) for name in MATRIX for composite in ("epsilon", "epsilon_gamma_box")),
    *((name, "epsilon_plus") for name in ("UNet", "UNETR", "SEResNet50")),
    *((name, "alpha2_beta1") for name in ("UNet", "UNETR", "SEResNet50")),
]
HEAVY = [name for name, row in MATRIX.items() if row.heavy]


@pytest.mark.parametrize(("name", "composite"), CASES)
def test_relevance_and_what_biases_and_stabilizers_took_add_up_to_the_score(name, composite):
    net, x = network(name, 2).double(), image(name, 2, light=True).double()
    plain = net(x).detach()
    found = propagated(net, x, Lrp(composite=composite), score)
    assert found.residual <= 1e-8
    assert relative(found.output, plain) <= 1e-6
    assert found.entered == pytest.approx(float(score(plain).sum()), rel=1e-9)
    assert float(found.relevance.abs().max()) > 1e-3 * abs(found.entered) / x.numel()
    assert found.warnings == []
    if composite in ("epsilon", "epsilon_gamma_box"):  # others lose what nothing carries
        assert abs(found.epsilon) <= 1e-3 * abs(found.entered)


@pytest.mark.parametrize("name", MATRIX)
def test_the_audit_covers_it(name):
    found = audit(network(name, 2), image(name, 2, light=True), ("lrp",))
    assert found.covered("lrp")
    assert found.conservation["lrp"] <= 1e-4
    assert found.forward_difference["lrp"] <= 1e-6
    assert found.remarks["lrp"] == ()


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in HEAVY else ()) for n in MATRIX],
)
def test_three_d_in_float32(name):
    net, x = network(name), image(name, light=True)
    plain = passed(net, x, RULES["plain"], score=score)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    found = propagated(net, x, Lrp(), score)
    assert found.residual <= 1e-4
    assert relative(found.output, plain.output) <= 1e-6
    again = passed(net, x, RULES["plain"], score=score)
    assert torch.equal(again.gradient, plain.gradient)
    assert all(torch.equal(state[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize("name", MATRIX)
def test_a_batch_of_four_is_four_times_one(name):
    net, x = network(name, 2).double(), image(name, 2, batch=4, light=True).double()
    together = propagated(net, x, Lrp(), score)
    for i in (0, 3):
        alone = propagated(net, x[i : i + 1], Lrp(), score).relevance
        assert relative(together.relevance[i : i + 1], alone) <= 1e-5
    assert together.residual <= 1e-8


@pytest.mark.parametrize("name", MATRIX)
def test_the_same_map_twice_and_after_any_other_rule(name):
    net, x = network(name, 2), image(name, 2, light=True)
    first = propagated(net, x, Lrp(), score)
    for rule in ("plain", "guided"):
        passed(net, x, RULES[rule], score=score)
    again = propagated(net, x, Lrp(), score)
    assert torch.equal(first.relevance, again.relevance)
    assert first.treated == again.treated


@pytest.mark.parametrize("name", ["SegResNet", "AttentionUnet", "ResNet10"])
def test_one_slice_three_d_runs_conserve(name):
    net = network(name).double()
    thin = image(name, 2, light=True).double()[..., None]
    assert propagated(net, thin, Lrp(), score).residual <= 1e-8
