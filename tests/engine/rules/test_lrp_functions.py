"""Relevance through functions that are no weighted layers, each in closed form."""

import dense
import pytest
import torch
import torch.nn.functional as F
from dense import margin
from rule_passes import Calls
from torch import nn

from voxplain.engine.rules import Lrp
from voxplain.engine.rules.lrp.composites import Choice
from voxplain.errors import RuleError

EPSILON = Lrp(composite="epsilon")


def draw(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def sent(function, x, arriving=None, rule=EPSILON):
    """What arrives at x, with the balance, when R enters at f(x)."""
    leaf = x.clone().requires_grad_()
    with rule.mode() as mode:
        output = function(leaf)
    output_seed = draw(*output.shape, seed=9) if arriving is None else arriving
    (found,) = torch.autograd.grad(output, leaf, output_seed)
    return found, output_seed, mode


def close(found, expected, tolerance=1e-9):
    assert float(expected.abs().max()) > 1e-6
    assert float((found - expected).abs().max() / expected.abs().max()) <= tolerance


RECTIFIERS = [
    *(F.relu, F.leaky_relu, F.elu, F.selu, F.celu, F.relu6, F.hardswish, F.softplus, F.gelu),
    *(F.silu, F.mish, torch.sigmoid, torch.tanh, F.hardsigmoid, F.hardtanh, lambda x: x.clamp(0)),
    *(lambda x: F.prelu(x, torch.tensor([0.2]).double()), lambda x: x * 3, lambda x: x / 4),
    *(lambda x: -x, lambda x: x.clone().relu_(), lambda x: F.dropout(x, 0.5, False)),
]


@pytest.mark.parametrize("function", RECTIFIERS)
def test_elementwise_functions_hand_relevance_on(function):
    x = draw(2, 3, 4)
    found, output_seed, mode = sent(function, x)
    close(found, output_seed, 2e-5 if "neg" in mode.treated else 1e-12)


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
def test_what_moves_or_selects_values_moves_their_relevance(function):
    x = draw(2, 3, 4)
    found, output_seed, _ = sent(function, x)
    leaf = x.clone().requires_grad_()
    (interpolated,) = torch.autograd.grad(function(leaf), leaf, output_seed)
    close(found, interpolated)


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
def test_means_and_interpolation_share_by_contribution(function):
    x = draw(1, 2, 4, 4)
    found, output_seed, mode = sent(function, x)
    expected = dense.epsilon(dense.dense(function, x), output_seed.flatten())
    close(found.flatten(), expected)
    assert abs(float(found.sum() - output_seed.sum()) + mode.conservation.epsilon) < 1e-9


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
def test_sums_share_in_proportion_to_what_each_operand_adds(function, factors):
    pair = draw(2, 5)
    found, output_seed, _ = sent(lambda both: function(both[:1], both[1:]), pair)
    first, second = (factor * part for factor, part in zip(factors, pair, strict=True))
    quotient = output_seed[0] / margin(first + second)
    close(found, torch.stack([first * quotient, second * quotient]))


def test_a_broadcast_operand_collects_from_everywhere():
    x = draw(3, 4)
    found, output_seed, _ = sent(lambda x: x + x.mean(0, keepdim=True).detach() * 0 + x[:1], x)
    quotient = output_seed / (x + x[:1])
    expected = x * quotient
    expected[0] += (x[0] * quotient).sum(0)
    close(found, expected, 1e-4)


def test_constants_of_a_sum_take_what_a_bias_takes():
    x, constant = draw(1, 6), draw(1, 6, seed=2)
    for function in (lambda x: x + constant, lambda x: constant + x, lambda x: x - (-constant)):
        found, output_seed, mode = sent(function, x)
        quotient = output_seed / margin(x + constant)
        close(found, x * quotient)
        assert mode.conservation.bias == pytest.approx(float((constant * quotient).sum()))
    found, output_seed, mode = sent(lambda x: 1 - x, x)
    close(found, -x * output_seed / margin(1 - x))


def test_gates_give_everything_to_their_signal_or_half():
    x = draw(2, 5)
    gated = lambda both: both[:1] * torch.sigmoid(both[1:])  # noqa: E731
    found, output_seed, _ = sent(gated, x)
    close(found, torch.cat([output_seed, 0 * output_seed]))
    half, _, _ = sent(gated, x, rule=Lrp(composite="epsilon", gate="half"))
    close(half, torch.cat([output_seed, output_seed]) / 2)
    plain, _, _ = sent(lambda both: both[:1] * both[1:], x)
    close(plain, torch.cat([output_seed, output_seed]) / 2)


def test_squeeze_and_excitation_is_a_gate_whatever_happens_to_the_sigmoid():
    x = draw(2, 3, 4, 4)

    def network(x):
        weights = F.hardsigmoid(x.mean((2, 3)) * 0.3)[..., None, None].expand_as(x)
        return weights * x

    found, output_seed, _ = sent(network, x)
    close(found, output_seed)


def test_a_sum_with_a_sigmoid_is_no_gate():
    x = draw(2, 5)
    u, v = x[:1], x[1:]
    found, output_seed, _ = sent(lambda both: both[:1] * (both[1:] + torch.sigmoid(both[:1])), x)
    half = output_seed / 2
    quotient = half / margin(v + u.sigmoid())
    close(found, torch.cat([half + u.sigmoid() * quotient, v * quotient]))


def test_a_quotient_gives_everything_to_the_numerator():
    x = draw(2, 5)
    found, output_seed, _ = sent(lambda both: both[:1] / both[1:].exp(), x)
    close(found, torch.cat([output_seed, 0 * output_seed]))


def test_a_product_of_matrices_gives_half_to_each():
    x = draw(2, 1, 3, 3)
    found, output_seed, mode = sent(lambda both: both[0] @ both[1], x)
    left, right = x[0, 0], x[1, 0]
    quotient = output_seed[0] / margin(left @ right)
    half = [left * (quotient @ right.T) / 2, right * (left.T @ quotient) / 2]
    close(found[:, 0], torch.stack(half))
    assert abs(float(found.sum() - output_seed.sum()) + mode.conservation.epsilon) < 1e-9


def test_attention_weights_are_frozen():
    """However attention is written, the values share by their weights."""
    x = draw(1, 2, 5, 4)

    def steps(x):
        weights = torch.einsum("bhxd,bhyd->bhxy", x, x).mul(0.5).softmax(-1)
        return torch.einsum("bhxy,bhyd->bhxd", F.dropout(weights, 0.1, False), x)

    rule = Lrp(composite="epsilon", epsilon=0.0)
    found, output_seed, _ = sent(steps, x, rule=rule)
    weights = (x @ x.mT * 0.5).softmax(-1)
    close(found, x * (weights.mT @ (output_seed / (weights @ x))), 1e-9)
    for other in (
        lambda x: F.scaled_dot_product_attention(x, x, x),
        lambda x: torch.matmul((x @ x.transpose(-2, -1) / 2).softmax(-1), x),
        lambda x: torch.bmm(torch.bmm(x[0], x[0].mT).mul(0.5).softmax(-1), x[0])[None],
    ):
        close(sent(other, x, rule=rule)[0], found)


def test_multi_head_attention_conserves():
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
    x = draw(2, 5, 8)
    for weights in (False, True):
        found, output_seed, mode = sent(lambda x: attention(x, x, x, need_weights=weights)[0], x)  # noqa: B023
        kept = float(found.sum()) + mode.conservation.bias + mode.conservation.epsilon
        assert kept == pytest.approx(float(output_seed.sum()), rel=1e-9)
        assert found.abs().max() > 0.1


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
    for part in norm.parameters():
        nn.init.normal_(part, 1.0)
    norm.train()
    norm(draw(4, 4, 3, 3, seed=4) + 1)
    return norm.eval()


@pytest.mark.parametrize("name", NORMS)
def test_norms_are_affine_with_frozen_statistics(name):
    """The slope of each value by itself, from the norm of slightly scaled deviations."""
    norm, x = norm_of(name), draw(1, 4, 3, 3) * 2 + 0.5
    found, output_seed, mode = sent(norm, x)
    value = norm(x).detach()
    slope = _slope(name, norm, x)
    share = x * slope / margin(value) * output_seed
    close(found, share)
    kept = float(found.sum()) + mode.conservation.bias + mode.conservation.epsilon
    assert kept == pytest.approx(float(output_seed.sum()))
    passing, _, _ = sent(norm, x, output_seed, Lrp(composite=(Choice("pass", "norm"),)))
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


def test_a_batch_norm_is_its_neighbor_merged():
    """LRP-0 of convolution and norm is LRP-0 of the merged convolution."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(2, 4, 3).double().eval(), norm_of("batch")
    merged = nn.utils.fuse_conv_bn_eval(conv, norm)
    x, rule = draw(1, 2, 5, 5), Lrp(composite="epsilon", epsilon=0.0)
    found, output_seed, _ = sent(lambda x: norm(conv(x)), x, rule=rule)
    close(found, sent(merged, x, output_seed, rule)[0], 1e-9)


def test_softmax_keeps_its_first_order_part():
    x = draw(2, 5)
    found, output_seed, mode = sent(lambda x: x.softmax(-1), x)
    y = x.softmax(-1)
    close(found, x * (output_seed - y * output_seed.sum(-1, keepdim=True)), 2e-5)
    kept = float(found.sum()) + mode.conservation.bias + mode.conservation.epsilon
    assert kept == pytest.approx(float(output_seed.sum()))


def test_the_larger_of_two_takes_all():
    x = draw(2, 6)
    found, output_seed, _ = sent(lambda both: torch.maximum(both[:1], both[1:]), x)
    wins = x[:1] >= x[1:]
    close(found, torch.cat([output_seed * wins, output_seed * ~wins]))
    found, output_seed, _ = sent(lambda both: torch.min(both[:1], both[1:]), x)
    close(found, torch.cat([output_seed * ~wins, output_seed * wins]))


def test_a_class_token_takes_relevance_as_a_bias_does():
    token, x = nn.Parameter(draw(1, 1, 4)), draw(1, 3, 4)
    for join in (
        lambda x: torch.cat((token, x), dim=1),
        lambda x: torch.cat([x, token], 1),
        lambda x: torch.stack([token[0, 0], x[0, 0], x[0, 1], x[0, 2]])[None],
    ):
        found, output_seed, mode = sent(join, x)
        kept = float(found.sum()) + mode.conservation.bias
        assert kept == pytest.approx(float(output_seed.sum()))
        assert abs(mode.conservation.bias) > 0.01


def test_normalization_by_a_length_is_frozen():
    x = draw(1, 4, 3)
    found, output_seed, _ = sent(lambda x: F.normalize(x, dim=1), x)
    close(found, output_seed)
    found, output_seed, _ = sent(lambda x: F.glu(torch.cat([x, x], 1), 1), x)
    close(found, output_seed)


@pytest.mark.parametrize(
    ("function", "named"),
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
def test_functions_without_a_rule_are_named(function, named):
    with pytest.raises(RuleError, match=f"{named}.*test_lrp_functions, line"):
        sent(function, draw(2, 2, 3))


def test_recurrent_networks_are_refused():
    with pytest.raises(RuleError, match="lstm"):
        sent(lambda x: nn.LSTM(3, 2).double()(x)[0], draw(2, 2, 3))


def test_what_relevance_never_reaches_may_be_anything():
    x = draw(1, 4, 4)
    gate = lambda x: x * torch.sigmoid(x.exp().log1p())  # noqa: E731
    found, output_seed, _ = sent(gate, x)
    close(found, output_seed)


def test_warnings_instead_of_errors_say_what_happened():
    x = draw(1, 5)
    rule = Lrp(composite="epsilon", on_unknown="warn")
    found, output_seed, mode = sent(lambda x: x.exp(), x, rule=rule)
    close(found, x * output_seed, 1e-4)  # first order: x f'(x) / f(x) R
    assert "exp" in mode.warnings[0]
    _, _, mode = sent(lambda x: x.cumprod(-1), x, rule=rule)
    assert "cumprod" in mode.warnings[0]


def test_a_network_without_a_layer_that_reads_the_image_says_so():
    conv = nn.Conv2d(1, 2, 1).double()
    _, _, mode = sent(lambda x: conv(x.relu()), draw(1, 1, 3, 3), rule=Lrp())
    assert "box" in mode.warnings[0]
    _, _, mode = sent(conv, draw(1, 1, 3, 3), rule=Lrp())
    assert mode.warnings == []


def test_the_values_of_calls_are_untouched():
    x = draw(1, 4, 4)
    network = Calls(lambda x: (F.silu(x) - x.mean(-1, keepdim=True)).div_(3).add_(x).relu_())
    leaf = x.clone().requires_grad_()
    with EPSILON.mode():
        output = network(leaf)
    assert torch.equal(output, network(x))
