"""Equal computations have one relevance map; closed forms; captum where it is correct."""

import captum.attr as captum
import pytest
import torch
from captum.attr._utils import lrp_rules as captum_rules
from relevance import run_lrp
from rule_passes import relative
from test_rule_spellings import SPELLINGS, Network, Reused
from torch import nn

from voxplain.engine.rules import Lrp

COMPOSITES = {name: Lrp(composite=name, epsilon=1e-10) for name in (
    "epsilon", "epsilon_gamma_box", "epsilon_plus", "alpha2_beta1"
)}  # fmt: skip


def network(kind, rank=3):
    torch.manual_seed(0)
    return kind(rank).double().eval()


def images(rank, batch=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randn((batch, 2, *[6] * rank), generator=generator).double()


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_five_spellings_agree(spelling, composite, rank):
    x = images(rank)
    expected = run_lrp(network(Network, rank), x, COMPOSITES[composite])
    other = run_lrp(network(spelling, rank), x, COMPOSITES[composite])
    assert relative(other.relevance, expected.relevance) <= 1e-6
    assert other.residual <= 1e-8
    assert torch.equal(other.output, network(spelling, rank)(x))


@pytest.mark.parametrize("composite", COMPOSITES)
def test_one_slice_in_three_d_is_the_two_d_result(composite):
    flat, thick = network(Network, 2), network(Network, 3)
    for name in ("first", "second"):
        spread = torch.zeros_like(getattr(thick, name).weight)
        spread[..., 1] = getattr(flat, name).weight.detach()
        getattr(thick, name).weight = nn.Parameter(spread)
        getattr(thick, name).bias = getattr(flat, name).bias
    thick.head = flat.head
    x = images(2)
    two = run_lrp(flat, x, COMPOSITES[composite])
    three = run_lrp(thick, x[..., None], COMPOSITES[composite])
    assert relative(three.relevance[..., 0], two.relevance) <= 1e-9


def without_biases():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 2, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(5, 3, bias=False),
    ).double()  # fmt: skip


def test_lrp_zero_of_a_network_without_biases_is_input_times_gradient():
    net, x = without_biases(), images(2)
    result = run_lrp(net, x, Lrp(composite="epsilon", epsilon=0.0))
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(leaf).sum(), leaf)
    assert relative(result.relevance, x * gradient) <= 1e-9
    assert result.bias == 0
    assert abs(result.epsilon) <= 1e-9 * abs(result.output_relevance)


def test_relevance_of_biases_is_the_biases_times_their_gradients():
    """LRP-0 of a ReLU network: each bias absorbs b dS/db."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)
    ).double()
    result = run_lrp(net, images(2), Lrp(composite="epsilon", epsilon=0.0))
    biases = [parameter for name, parameter in net.named_parameters() if name.endswith("bias")]
    gradients = torch.autograd.grad(net(images(2)).sum(), biases)
    expected = sum(float((b * g).sum()) for b, g in zip(biases, gradients, strict=True))
    assert result.bias == pytest.approx(expected, rel=1e-9)


class Stacked(nn.Module):
    """Captum has no rule for a Flatten module."""

    def __init__(self, biased: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, bias=biased), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(4, 5, 2, bias=biased), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(20, 3)

    def forward(self, x):
        return self.head(self.features(x).flatten(1))


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus"])
def test_captum_agrees_where_it_has_rules(composite):
    """Module-only 2-D network with ReLUs; captum adds a fixed 1e-9 to its denominators.

    With the z-plus rule captum keeps positive biases in the denominator, so they are left out.
    """
    torch.manual_seed(0)
    biased = composite == "epsilon"
    net = Stacked(biased).double()
    x = images(2).abs()  # captum's rule for z-plus takes the weights' sign for the product's
    for module in net.features:
        if isinstance(module, nn.Conv2d):
            positive = captum_rules.Alpha1_Beta0_Rule()
            module.rule = positive if composite == "epsilon_plus" else captum_rules.EpsilonRule(0)
    net.head.rule = captum_rules.EpsilonRule(0)
    expected = captum.LRP(net).attribute(x, target=1)
    result = run_lrp(net, x, COMPOSITES[composite], lambda output: output[:, 1])
    assert relative(result.relevance, expected) <= 1e-6


def test_a_layer_that_is_called_twice_has_two_relevances():
    """Other libraries store one relevance per layer, and overwrite it."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(2, 2, 3, padding=1), nn.Linear(72, 2)

        def forward(self, x):
            return self.head(self.conv(self.conv(x).relu()).relu().flatten(1))

    class Copied(Twice):
        def forward(self, x):
            return self.head(self.other(self.conv(x).relu()).relu().flatten(1))

    torch.manual_seed(0)
    shared, copied = Twice().double(), Copied().double()
    copied.load_state_dict(shared.state_dict())
    copied.other = nn.Conv2d(2, 2, 3, padding=1).double()
    copied.other.load_state_dict(shared.conv.state_dict())
    of_shared, of_copied = (run_lrp(net, images(2), Lrp()) for net in (shared, copied))
    assert torch.equal(of_shared.relevance, of_copied.relevance)
    assert run_lrp(network(Reused), images(3), Lrp()).residual <= 1e-8
