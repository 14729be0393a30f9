"""LRP of functions that are not weighted layers, each in closed form."""

import dense
import pytest
import torch
import torch.nn.functional as F
from dense import stabilized
from rule_passes import AsNetwork
from torch import nn

from voxplain.engine.rules import Lrp
from voxplain.engine.rules.lrp.composites import Choice
from voxplain.errors import RuleError

EPSILON = Lrp(composite="epsilon")


def draw(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def propagate(function, x, given_seed=None, rule=EPSILON):
    """Relevance at x for a seed at f(x), the seed, and the mode."""
    leaf = x.clone().requires_grad_()
    with rule.mode() as mode:
        output = function(leaf)
    output_seed = draw(*output.shape, seed=9) if given_seed is None else given_seed
    (relevance,) = torch.autograd.grad(output, leaf, output_seed)
    return relevance, output_seed, mode


def close(relevance, expected, tolerance=1e-9):
    assert float(expected.abs().max()) > 1e-6
    assert float((relevance - expected).abs().max() / expected.abs().max()) <= tolerance


RECTIFIERS = [
    *(F.relu, F.leaky_relu, F.elu, F.selu, F.celu, F.relu6, F.hardswish, F.softplus, F.gelu),
    *(F.silu, F.mish, torch.sigmoid, torch.tanh, F.hardsigmoid, F.hardtanh, lambda x: x.clamp(0)),
    *(lambda x: F.prelu(x, torch.tensor([0.2]).double()), lambda x: x * 3, lambda x: x / 4),
    *(lambda x: -x, lambda x: x.clone().relu_(), lambda x: F.dropout(x, 0.5, False)),
]


@pytest.mark.parametrize("function", RECTIFIERS)
def test_elementwise_functions_pass_relevance_unchanged(function):
    x = draw(2, 3, 4)
    relevance, output_seed, mode = propagate(function, x)
    close(relevance, output_seed, 2e-5 if "neg" in mode.treated else 1e-12)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.permute(2, 0, 1)[1:].reshape(-1),
        lambda x: F.pad(x, (1, 2)).flatten(1),
        lambda x: torch.cat([x[..., :1], x[..., 1:]], -1),
        lambda x: F.max_pool2d(x[None], 2).flatten(),
        lambda x: x.amax(-1),
        lambda x: x.max(1).values,
        lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
        lambda x: torch.where(torch.ones(4).bool(), x, x),
    ],
)
def test_rearrangements_and_selections_rearrange_relevance(function):
    x = draw(2, 3, 4)
    relevance, output_seed, _ = propagate(function, x)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(leaf), leaf, output_seed)
    close(relevance, gradient)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        lambda x: F.interpolate(x, size=(3, 3), mode="bilinear", align_corners=True),
        lambda x: x.mean((2, 3)),
        lambda x: x.sum(1),
    ],
)
def test_means_and_interpolation_redistribute_by_contribution(function):
    x = draw(1, 2, 4, 4)
    relevance, output_seed, mode = propagate(function, x)
    expected = dense.epsilon(dense.dense(function, x), output_seed.flatten())
    close(relevance.flatten(), expected)
    assert abs(float(relevance.sum() - output_seed.sum()) + mode.conservation.epsilon) < 1e-9


def _iadd(x, other):
    total = x * 1
    total += other
    return total


@pytest.mark.parametrize(
    ("function", "factors"),
    [
        (lambda x, y: x + y, (1, 1)),
        (lambda x, y: x - y, (1, -1)),
        (lambda x, y: torch.add(x, y, alpha=3), (1, 3)),
        (lambda x, y: torch.sub(x, y, alpha=3), (1, -3)),
        (lambda x, y: torch.rsub(x, y, alpha=2), (-2, 1)),
        (lambda x, y: (x * 1).add_(y, alpha=2), (1, 2)),
        (lambda x, y: (x * 1).sub_(y), (1, -1)),
        (_iadd, (1, 1)),
    ],
)
def test_sums_redistribute_in_proportion_to_their_terms(function, factors):
    pair = draw(2, 5)
    relevance, output_seed, _ = propagate(lambda both: function(both[:1], both[1:]), pair)
    first, second = (factor * term for factor, term in zip(factors, pair, strict=True))
    quotient = output_seed[0] / stabilized(first + second)
    close(relevance, torch.stack([first * quotient, second * quotient]))


def test_a_broadcast_operand_gets_relevance_from_all_positions():
    x = draw(3, 4)
    relevance, output_seed, _ = propagate(
        lambda x: x + x.mean(0, keepdim=True).detach() * 0 + x[:1], x
    )
    quotient = output_seed / (x + x[:1])
    expected = x * quotient
    expected[0] += (x[0] * quotient).sum(0)
    close(relevance, expected, 1e-4)


def test_constants_of_a_sum_absorb_relevance_as_a_bias_does():
    x, constant = draw(1, 6), draw(1, 6, seed=2)
    for function in (lambda x: x + constant, lambda x: constant + x, lambda x: x - (-constant)):
        relevance, output_seed, mode = propagate(function, x)
        quotient = output_seed / stabilized(x + constant)
        close(relevance, x * quotient)
        assert mode.conservation.bias == pytest.approx(float((constant * quotient).sum()))
    relevance, output_seed, mode = propagate(lambda x: 1 - x, x)
    close(relevance, -x * output_seed / stabilized(1 - x))


def test_gates_give_everything_to_their_signal_or_half():
    x = draw(2, 5)
    gated_product = lambda both: both[:1] * torch.sigmoid(both[1:])  # noqa: E731
    relevance, output_seed, _ = propagate(gated_product, x)
    close(relevance, torch.cat([output_seed, 0 * output_seed]))
    half, _, _ = propagate(gated_product, x, rule=Lrp(composite="epsilon", gate="half"))
    close(half, torch.cat([output_seed, output_seed]) / 2)
    plain, _, _ = propagate(lambda both: both[:1] * both[1:], x)
    close(plain, torch.cat([output_seed, output_seed]) / 2)


def test_squeeze_and_excitation_is_a_gate_after_reshaping_the_sigmoid():
    x = draw(2, 3, 4, 4)

    def network(x):
        weights = F.hardsigmoid(x.mean((2, 3)) * 0.3)[..., None, None].expand_as(x)
        return weights * x

    relevance, output_seed, _ = propagate(network, x)
    close(relevance, output_seed)


def test_a_sum_with_a_sigmoid_is_no_gate():
    x = draw(2, 5)
    u, v = x[:1], x[1:]
    relevance, output_seed, _ = propagate(
        lambda both: both[:1] * (both[1:] + torch.sigmoid(both[:1])), x
    )
    half = output_seed / 2
    quotient = half / stabilized(v + u.sigmoid())
    close(relevance, torch.cat([half + u.sigmoid() * quotient, v * quotient]))


def test_a_quotient_gives_everything_to_the_numerator():
    x = draw(2, 5)
    relevance, output_seed, _ = propagate(lambda both: both[:1] / both[1:].exp(), x)
    close(relevance, torch.cat([output_seed, 0 * output_seed]))


def test_a_product_of_matrices_gives_half_to_each():
    x = draw(2, 1, 3, 3)
    relevance, output_seed, mode = propagate(lambda both: both[0] @ both[1], x)
    left, right = x[0, 0], x[1, 0]
    quotient = output_seed[0] / stabilized(left @ right)
    half = [left * (quotient @ right.T) / 2, right * (left.T @ quotient) / 2]
    close(relevance[:, 0], torch.stack(half))
    assert abs(float(relevance.sum() - output_seed.sum()) + mode.conservation.epsilon) < 1e-9


def test_attention_weights_are_constants():
    """In every spelling of attention, relevance goes to the values by their weights."""
    x = draw(1, 2, 5, 4)

    def steps(x):
        weights = torch.einsum("bhxd,bhyd->bhxy", x, x).mul(0.5).softmax(-1)
        return torch.einsum("bhxy,bhyd->bhxd", F.dropout(weights, 0.1, False), x)

    rule = Lrp(composite="epsilon", epsilon=0.0)
    relevance, output_seed, _ = propagate(steps, x, rule=rule)
    weights = (x @ x.mT * 0.5).softmax(-1)
    close(relevance, x * (weights.mT @ (output_seed / (weights @ x))), 1e-9)
    for other in (
        lambda x: F.scaled_dot_product_attention(x, x, x),
        lambda x: torch.matmul((x @ x.transpose(-2, -1) / 2).softmax(-1), x),
        lambda x: torch.bmm(torch.bmm(x[0], x[0].mT).mul(0.5).softmax(-1), x[0])[None],
    ):
        close(propagate(other, x, rule=rule)[0], relevance)


def test_multi_head_attention_conserves():
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
    x = draw(2, 5, 8)
    for weights in (False, True):
        relevance, output_seed, mode = propagate(
            lambda x: attention(x, x, x, need_weights=weights)[0],  # noqa: B023
            x,
        )
        total = float(relevance.sum()) + mode.conservation.bias + mode.conservation.epsilon
        assert total == pytest.approx(float(output_seed.sum()), rel=1e-9)
        assert relevance.abs().max() > 0.1


NORMS = {
    "instance": lambda: nn.InstanceNorm2d(4, affine=True),
    "group": lambda: nn.GroupNorm(2, 4),
    "layer": lambda: nn.LayerNorm((4, 3, 3)),
    "layer, last": lambda: nn.LayerNorm(3),
    "rms": lambda: nn.RMSNorm(3),
    "batch": lambda: nn.BatchNorm2d(4),
    "tracked": lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
}


def norm_of(name):
    torch.manual_seed(2)
    norm = NORMS[name]().double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter, 1.0)
    norm.train()
    norm(draw(4, 4, 3, 3, seed=4) + 1)
    return norm.eval()


@pytest.mark.parametrize("name", NORMS)
def test_norms_are_affine_with_frozen_statistics(name):
    """Relevance by the slope of each value at fixed mean and variance."""
    norm, x = norm_of(name), draw(1, 4, 3, 3) * 2 + 0.5
    relevance, output_seed, mode = propagate(norm, x)
    value = norm(x).detach()
    slope = _slope(name, norm, x)
    expected = x * slope / stabilized(value) * output_seed
    close(relevance, expected)
    total = float(relevance.sum()) + mode.conservation.bias + mode.conservation.epsilon
    assert total == pytest.approx(float(output_seed.sum()))
    passing, _, _ = propagate(norm, x, output_seed, Lrp(composite=(Choice("pass", "norm"),)))
    close(passing, output_seed)


def _slope(name, norm, x):
    weight = norm.weight.detach()
    if name in ("batch", "tracked"):
        return (weight / (norm.running_var + norm.eps).sqrt()).view(1, 4, 1, 1)
    if name == "rms":
        return weight / (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt()
    axes = {"instance": (2, 3), "layer": (1, 2, 3), "layer, last": (3,)}.get(name)
    if name == "group":
        grouped = x.view(1, 2, -1).var(-1, correction=0).repeat_interleave(2, 1)
        spread = grouped.view(1, 4, 1, 1)
    else:
        spread = x.var(axes, correction=0, keepdim=True)
    weight = weight.view(1, 4, 1, 1) if name in ("instance", "group") else weight
    return weight / (spread + norm.eps).sqrt()


def test_a_batch_norm_equals_its_merged_convolution():
    """LRP-0 of convolution and norm is LRP-0 of the merged convolution."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(2, 4, 3).double().eval(), norm_of("batch")
    merged = nn.utils.fuse_conv_bn_eval(conv, norm)
    x, rule = draw(1, 2, 5, 5), Lrp(composite="epsilon", epsilon=0.0)
    relevance, output_seed, _ = propagate(lambda x: norm(conv(x)), x, rule=rule)
    close(relevance, propagate(merged, x, output_seed, rule)[0], 1e-9)


def test_softmax_keeps_its_first_order_part():
    x = draw(2, 5)
    relevance, output_seed, mode = propagate(lambda x: x.softmax(-1), x)
    y = x.softmax(-1)
    close(relevance, x * (output_seed - y * output_seed.sum(-1, keepdim=True)), 2e-5)
    total = float(relevance.sum()) + mode.conservation.bias + mode.conservation.epsilon
    assert total == pytest.approx(float(output_seed.sum()))


def test_the_larger_of_two_operands_gets_all_relevance():
    x = draw(2, 6)
    relevance, output_seed, _ = propagate(lambda both: torch.maximum(both[:1], both[1:]), x)
    first_wins = x[:1] >= x[1:]
    close(relevance, torch.cat([output_seed * first_wins, output_seed * ~first_wins]))
    relevance, output_seed, _ = propagate(lambda both: torch.min(both[:1], both[1:]), x)
    close(relevance, torch.cat([output_seed * ~first_wins, output_seed * first_wins]))


def test_a_class_token_absorbs_relevance_as_a_bias_does():
    token, x = nn.Parameter(draw(1, 1, 4)), draw(1, 3, 4)
    for join in (
        lambda x: torch.cat((token, x), dim=1),
        lambda x: torch.cat([x, token], 1),
        lambda x: torch.stack([token[0, 0], x[0, 0], x[0, 1], x[0, 2]])[None],
    ):
        relevance, output_seed, mode = propagate(join, x)
        total = float(relevance.sum()) + mode.conservation.bias
        assert total == pytest.approx(float(output_seed.sum()))
        assert abs(mode.conservation.bias) > 0.01


def test_normalization_by_a_length_is_frozen():
    x = draw(1, 4, 3)
    relevance, output_seed, _ = propagate(lambda x: F.normalize(x, dim=1), x)
    close(relevance, output_seed)
    relevance, output_seed, _ = propagate(lambda x: F.glu(torch.cat([x, x], 1), 1), x)
    close(relevance, output_seed)


@pytest.mark.parametrize(
    ("function", "function_name"),
    [
        (lambda x: x.exp().sum(), "exp"),
        (lambda x: (x.abs() + 1).log(), "log"),
        (lambda x: x.cumprod(-1), "cumprod"),
        (lambda x: 1 / x, "constant"),
        (lambda x: torch.div(x, 2, rounding_mode="floor"), "rounding"),
        (lambda x: F.conv1d(x, x[:1]), "weight"),
        (lambda x: torch.einsum("bci,bci,bci->b", x, x, x), "three"),
    ],
)
def test_functions_without_a_rule_are_named(function, function_name):
    with pytest.raises(RuleError, match=f"{function_name}.*test_lrp_functions, line"):
        propagate(function, draw(2, 2, 3))


def test_recurrent_networks_are_refused():
    with pytest.raises(RuleError, match="lstm"):
        propagate(lambda x: nn.LSTM(3, 2).double()(x)[0], draw(2, 2, 3))


def test_functions_that_relevance_never_reaches_need_no_rule():
    x = draw(1, 4, 4)
    gate = lambda x: x * torch.sigmoid(x.exp().log1p())  # noqa: E731
    relevance, output_seed, _ = propagate(gate, x)
    close(relevance, output_seed)


def test_on_unknown_warn_names_the_function():
    x = draw(1, 5)
    rule = Lrp(composite="epsilon", on_unknown="warn")
    relevance, output_seed, mode = propagate(lambda x: x.exp(), x, rule=rule)
    close(relevance, x * output_seed, 1e-4)  # first order: x f'(x) / f(x) R
    assert "exp" in mode.warnings[0]
    _, _, mode = propagate(lambda x: x.cumprod(-1), x, rule=rule)
    assert "cumprod" in mode.warnings[0]


def test_a_network_without_a_layer_that_reads_the_image_has_a_warning():
    conv = nn.Conv2d(1, 2, 1).double()
    _, _, mode = propagate(lambda x: conv(x.relu()), draw(1, 1, 3, 3), rule=Lrp())
    assert "box" in mode.warnings[0]
    _, _, mode = propagate(conv, draw(1, 1, 3, 3), rule=Lrp())
    assert mode.warnings == []


def test_the_values_of_calls_are_untouched():
    x = draw(1, 4, 4)
    network = AsNetwork(lambda x: (F.silu(x) - x.mean(-1, keepdim=True)).div_(3).add_(x).relu_())
    leaf = x.clone().requires_grad_()
    with EPSILON.mode():
        output = network(leaf)
    assert torch.equal(output, network(x))
