"""Every function with a rule: completeness, and each formula derived again in matrix form."""

import math

import pytest
import torch
import torch.nn.functional as F
from rule_passes import RULES, AsNetwork, relative, run_pass
from torch import nn

from voxplain.engine.rules import Deconvnet, DeepLiftRule, Guided
from voxplain.errors import RuleError

F64 = torch.float64


def _inputs(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=F64) for _ in range(2))


def _in_place(function):
    def apply(x):
        y = x * 1
        function(y)
        return y

    return apply


def _assigned(y):
    y[y < 0] = 0


def _dynamic_filter(x):
    weight = torch.linspace(-1, 1, 3 * 4 * 9, dtype=x.dtype).reshape(3, 4, 3, 3)
    return F.conv2d(x, weight * x.mean((0, 2, 3))[None, :, None, None])


FUNCTIONS = {
    "relu": F.relu,
    "relu_": _in_place(torch.relu_),
    "relu in place, not assigned": _in_place(lambda y: F.relu(y, inplace=True)),
    "method relu_": _in_place(lambda y: y.relu_()),
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "prelu": lambda x: F.prelu(x, torch.full((4,), 0.3, dtype=x.dtype)),
    "elu": lambda x: F.elu(x, 1.5),
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 2.0),
    "threshold": lambda x: F.threshold(x, 0.2, 0.0),
    "rrelu": lambda x: F.rrelu(x, training=False),
    "hardswish": F.hardswish,
    "softplus": F.softplus,
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "silu_": _in_place(lambda y: F.silu(y, inplace=True)),
    "mish": F.mish,
    "sigmoid": torch.sigmoid,
    "tanh": lambda x: x.tanh(),
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh,
    "clamp": lambda x: x.clamp(-0.5, max=0.7),
    "clamp_": _in_place(lambda y: y.clamp_(min=0)),
    "softsign": F.softsign,
    "logsigmoid": F.logsigmoid,
    "exp": torch.exp,
    "log": lambda x: (x.abs() + 0.1).log(),
    "sqrt": lambda x: (x * x + 0.1).sqrt(),
    "rsqrt": lambda x: (x.square() + 0.1).rsqrt(),
    "pow": lambda x: x**3,
    "rpow": lambda x: 2**x,
    "reciprocal": lambda x: (x * x + 1).reciprocal(),
    "mul": lambda x: x * x.sigmoid(),
    "mul_": _in_place(lambda y: y.mul_(y.exp())),
    "square by itself": lambda x: x * x,
    "broadcast gate": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "div": lambda x: x / (x.exp() + 1),
    "rdiv": lambda x: 2 / (x**2 + 1),
    "matmul": lambda x: x @ x.transpose(-1, -2),
    "bmm": lambda x: torch.bmm(x[:, 0], x[:, 1]),
    "einsum": lambda x: torch.einsum("bcij,bdij->bcd", x, x),
    "einsum with a weight": lambda x: torch.einsum(
        "bcij,bdij,c->bd", x, x, torch.arange(4.0, dtype=x.dtype)
    ),
    "baddbmm": lambda x: torch.baddbmm(x[:, 0], x[:, 1], x[:, 2], beta=0.5),
    "dynamic filter": _dynamic_filter,
    "attention": lambda x: F.scaled_dot_product_attention(x, x.flip(1), x * 2),
    "causal attention": lambda x: F.scaled_dot_product_attention(x, x.flip(1), x, is_causal=True),
    "softmax": lambda x: torch.softmax(x * 3, 1),
    "softmax of far logits": lambda x: torch.softmax(x * 500, 1),
    "masked softmax": lambda x: torch.softmax(
        x.masked_fill(torch.eye(6, dtype=torch.bool), -math.inf), -1
    ),
    "softmax with an added mask": lambda x: torch.softmax(
        x + torch.zeros(6, 6, dtype=x.dtype).fill_diagonal_(-math.inf), -1
    ),
    "log_softmax": lambda x: F.log_softmax(x * 3, 1),
    "logsumexp": lambda x: torch.logsumexp(x, (1, 2)),
    "softmin": lambda x: F.softmin(x, 1),
    "layer_norm": lambda x: F.layer_norm(x, (6, 6), torch.ones(6, 6, dtype=x.dtype) * 2),
    "instance_norm": F.instance_norm,
    "group_norm": lambda x: F.group_norm(x, 2, torch.arange(4.0, dtype=x.dtype)),
    "rms_norm": lambda x: F.rms_norm(x, (6,)),
    "batch statistics": lambda x: F.batch_norm(x, None, None, training=True),
    "normalize": lambda x: F.normalize(x, dim=1),
    "local_response_norm": lambda x: F.local_response_norm(x, 3),
    "by hand": lambda x: (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 0.1),
    "var": lambda x: x.var((2, 3), unbiased=False),
    "std_mean": lambda x: sum(torch.std_mean(x, 1)),
    "norm": lambda x: x.norm(dim=2),
    "vector norm 3": lambda x: torch.linalg.vector_norm(x, 3, dim=1),
    "max_pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max_pool with indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "adaptive_max_pool": lambda x: F.adaptive_max_pool2d(x, 4),
    "amax": lambda x: x.amax((1, 3)),
    "amin": lambda x: x.amin((2, 3), keepdim=True),
    "max over an axis": lambda x: x.max(1)[0],
    "max of all": lambda x: x.max(),
    "min of all": lambda x: x.min()[None],
    "max of two": lambda x: torch.max(x, x.flip(2)),
    "maximum with a constant": lambda x: torch.maximum(x, torch.zeros((), dtype=x.dtype)),
    "minimum": lambda x: torch.minimum(x, x.exp() - 2),
    "lp_pool": lambda x: F.lp_pool2d(x, 2, 2),
    "glu": lambda x: F.glu(x, 1),
    "lerp": lambda x: torch.lerp(x, x.exp(), x.sigmoid()),
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.5),
    "addcdiv": lambda x: torch.addcdiv(x, x, x.exp()),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "where zero": lambda x: torch.where(x > 0, x, torch.zeros((), dtype=x.dtype)),
    "method where": lambda x: x.where(x > 0, x.exp() - 1),
    "times mask": lambda x: x * (x > 0),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.0),
    "assignment": _in_place(_assigned),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_deep_lift_is_complete_and_leaves_the_value(name):
    network = AsNetwork(FUNCTIONS[name])
    x, b = _inputs(2, 4, 6, 6)
    weights = torch.randn(network(x).shape, generator=torch.Generator().manual_seed(3), dtype=F64)

    def score(output):
        return (output * weights).sum()[None]

    result = run_pass(network, x, DeepLiftRule(), b, score)
    change = result.scores - result.start_scores
    change = float(change)
    assert abs(float(((x - b) * result.gradient).sum()) - change) <= 1e-10 * max(1, abs(change))
    assert torch.equal(result.output, network(x))
    assert result.treated


@pytest.mark.parametrize("name", FUNCTIONS)
def test_deep_lift_between_nearly_equal_points_is_the_gradient(name):
    """The secant becomes the tangent: a wrong formula that happens to be complete would not."""
    x, step = _inputs(1, 4, 6, 6, seed=5)
    network = AsNetwork(FUNCTIONS[name])
    lift = run_pass(network, x, DeepLiftRule(), x + 1e-6 * step, _total).gradient
    plain = run_pass(network, x, RULES["plain"], score=_total).gradient
    assert relative(lift, plain, torch.cat([plain.flatten(), torch.ones(1, dtype=F64)])) <= 2e-3


def _total(output):
    return output.sum()[None]


@pytest.mark.parametrize("name", ["relu", "sigmoid", "sqrt", "softmax", "layer_norm", "mul"])
def test_deep_lift_at_the_reference_itself_is_finite(name):
    x = torch.zeros(1, 4, 6, 6, dtype=F64)
    result = run_pass(AsNetwork(FUNCTIONS[name]), x, DeepLiftRule(), x)
    assert torch.isfinite(result.gradient).all()


def _rule_matrix(function, x, b, rule):
    """Rows: outputs; columns: inputs; each row is what the rule returns for a unit gradient."""
    rows = []
    size = function(x[None])[0].numel()
    for i in range(size):
        result = run_pass(
            AsNetwork(function), x[None], rule, b[None], lambda y, i=i: y.flatten()[i][None]
        )
        rows.append(result.gradient.flatten())
    return torch.stack(rows)


def _close(one, other):
    assert torch.allclose(one, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("function", "slope"),
    [
        (F.relu, lambda x: (x > 0).double()),
        (lambda x: F.leaky_relu(x, 0.2), lambda x: torch.where(x > 0, 1.0, 0.2).double()),
        (F.elu, lambda x: torch.where(x > 0, 1.0, x.exp())),
        (F.silu, lambda x: x.sigmoid() * (1 + x * (1 - x.sigmoid()))),
        (F.softplus, torch.sigmoid),
        (
            lambda x: F.gelu(x),
            lambda x: (
                (1 + torch.erf(x / 2**0.5)) / 2 + x * torch.exp(-(x**2) / 2) / (2 * math.pi) ** 0.5
            ),
        ),
        (lambda x: x.clamp(min=0), lambda x: (x > 0).double()),
        (lambda x: F.hardtanh(x, 0.0, 6.0), lambda x: ((x > 0) & (x < 6)).double()),
    ],
)
def test_guided_and_deconvnet_by_their_formulas(function, slope):
    x, q = _inputs(40, seed=1)
    x, q = x[None] * 2, q[None]
    positive = q.clamp(min=0)

    def score(y):
        return (y * q).sum(1)

    guided = run_pass(AsNetwork(function), x, Guided(), score=score).gradient
    _close(guided, positive * slope(x).clamp(min=0))
    deconvnet = run_pass(AsNetwork(function), x, Deconvnet(), score=score).gradient
    _close(deconvnet, positive)


def test_the_slope_of_relu_at_zero_is_zero():
    x = torch.tensor([[0.0, -0.0, 1.0]])
    assert run_pass(AsNetwork(F.relu), x, Guided()).gradient.tolist() == [[0, 0, 1]]


def test_squashing_functions_are_plain_for_guided():
    x, _ = _inputs(3, 5)
    network = AsNetwork(lambda x: torch.softmax(x.sigmoid() - x, 1)[:, :2])
    guided = run_pass(network, x, Guided())
    assert torch.equal(guided.gradient, run_pass(network, x, RULES["plain"]).gradient)
    assert "no rectifier was met" in guided.warnings[0]


def test_relu_only_says_that_other_rectifiers_got_the_plain_gradient():
    x, _ = _inputs(3, 5)
    network = AsNetwork(lambda x: -F.elu(x))
    result = run_pass(network, x, Guided(functions="relu_only"))
    assert torch.equal(result.gradient, run_pass(network, x, RULES["plain"]).gradient)
    assert result.warnings == ["no ReLU was met, so the rule 'guided' gives the plain gradient"]


def test_rescale_is_the_difference_quotient():
    x, b = _inputs(7)
    _close(
        _rule_matrix(F.silu, x, b, DeepLiftRule()), torch.diag((F.silu(x) - F.silu(b)) / (x - b))
    )


def test_rescale_near_zero_difference_is_the_slope_half_way():
    x, _ = _inputs(7)
    b = x + 1e-12
    middle = ((x + b) / 2).sigmoid()
    _close(_rule_matrix(torch.sigmoid, x, b, DeepLiftRule()), torch.diag(middle * (1 - middle)))


def test_products_by_dense_algebra():
    x, b = _inputs(6)
    u, v, u_b, v_b = x[:3], x[3:], b[:3], b[3:]
    expected = torch.cat([torch.diag((v + v_b) / 2), torch.diag((u + u_b) / 2)], 1)
    _close(_rule_matrix(lambda z: z[:, :3] * z[:, 3:], x, b, DeepLiftRule()), expected)


def test_quotients_by_dense_algebra():
    x, b = _inputs(6)
    x[3:], b[3:] = x[3:].abs() + 0.5, b[3:].abs() + 0.5
    u, v, u_b, v_b = x[:3], x[3:], b[:3], b[3:]
    over = torch.diag((1 / v + 1 / v_b) / 2)
    under = torch.diag(-(u + u_b) / 2 / (v * v_b))
    _close(
        _rule_matrix(lambda z: z[:, :3] / z[:, 3:], x, b, DeepLiftRule()),
        torch.cat([over, under], 1),
    )


def test_matrix_products_by_dense_algebra():
    x, b = _inputs(12)
    shape = (2, 3), (3, 2)
    u, v = x[:6].reshape(shape[0]), x[6:].reshape(shape[1])
    u_b, v_b = b[:6].reshape(shape[0]), b[6:].reshape(shape[1])
    left = torch.kron(torch.eye(2, dtype=F64), ((v + v_b) / 2).T.contiguous())
    right = torch.kron(((u + u_b) / 2).contiguous(), torch.eye(2, dtype=F64))

    def function(z):
        return z[:, :6].reshape(-1, 2, 3) @ z[:, 6:].reshape(-1, 3, 2)

    _close(_rule_matrix(function, x, b, DeepLiftRule()), torch.cat([left, right], 1))


@pytest.mark.parametrize("distance", [0.0, 3.0, 900.0])
def test_softmax_by_exponential_sum_and_quotient_with_one_shift(distance):
    """The multipliers stay below 2 for any distance of the logits."""
    z, z_b = _inputs(5)
    z[0] += distance
    shift = torch.maximum(z.max(), z_b.max())
    e, e_b = (z - shift).exp(), (z_b - shift).exp()
    if distance < 100:
        total, total_b = e.sum(), e_b.sum()
        weight = total / (total + total_b)
        exponential = torch.diag((e - e_b) / (z - z_b))
        divide = torch.eye(5, dtype=F64) * (weight / total + (1 - weight) / total_b)
        mixed = (1 - weight) * e + weight * e_b
        by_sum = torch.outer(-mixed / (total * total_b), torch.ones(5, dtype=F64))
        expected = (divide + by_sum) @ exponential
        _close(_rule_matrix(lambda x: torch.softmax(x, -1), z, z_b, DeepLiftRule()), expected)
    result = _rule_matrix(lambda x: torch.softmax(x, -1), z, z_b, DeepLiftRule())
    assert float(result.abs().max()) < 2
    _close(result @ (z - z_b), torch.softmax(z, 0) - torch.softmax(z_b, 0))


def test_log_softmax_by_exponential_sum_and_logarithm():
    z, z_b = _inputs(5)
    e, e_b = z.exp(), z_b.exp()
    weights = (e.sum().log() - e_b.sum().log()) / (e.sum() - e_b.sum()) * (e - e_b) / (z - z_b)
    expected = torch.eye(5, dtype=F64) - torch.outer(torch.ones(5, dtype=F64), weights)
    _close(_rule_matrix(lambda x: F.log_softmax(x, -1), z, z_b, DeepLiftRule()), expected)


def test_compatible_softmax_is_rescale_minus_its_mean():
    z, z_b = _inputs(5)
    y, y_b = torch.softmax(z, 0), torch.softmax(z_b, 0)
    rescaled = torch.diag((y - y_b) / (z - z_b))
    expected = rescaled - rescaled.mean(1, keepdim=True)
    result = _rule_matrix(
        lambda x: torch.softmax(x, -1), z, z_b, DeepLiftRule(softmax="compatible")
    )
    _close(result, expected)


@pytest.mark.parametrize("spread", [1.0, 0.0])
def test_normalization_by_centering_variance_root_and_product(spread):
    """With a constant reference (spread 0) the multipliers stay of the size of 1 / sigma."""
    x, b = _inputs(6)
    b = b * spread
    n, eps = 6, 1e-5
    center = torch.eye(n, dtype=F64) - 1 / n
    c, c_b = center @ x, center @ b
    r, r_b = ((t.square().mean() + eps) ** -0.5 for t in (c, c_b))
    variance = (c + c_b)[None] / n
    root = ((r - r_b) / (c.square().mean() - c_b.square().mean())) * variance
    weight = r_b / (r + r_b)
    product = torch.eye(n, dtype=F64) * (weight * r + (1 - weight) * r_b)
    by_root = torch.outer(weight * c_b + (1 - weight) * c, root[0])
    expected = (product + by_root) @ center
    result = _rule_matrix(lambda z: F.layer_norm(z, (6,)), x, b, DeepLiftRule())
    _close(result, expected)
    assert float(result.abs().max()) < 10 / float(c.std())


def test_cross_max_credits_both_winners_and_accumulates_over_windows():
    x, b = _inputs(1, 7)
    expected = torch.zeros(5, 7, dtype=F64)
    for j in range(5):
        window, window_b = x[0, j : j + 3], b[0, j : j + 3]
        o, o_b = window.max(), window_b.max()
        both = torch.maximum(o, o_b)
        for credit, i in ((both - o_b, j + window.argmax()), (o - both, j + window_b.argmax())):
            if credit != 0:
                expected[j, i] += credit / (x[0, i] - b[0, i])
    _close(_rule_matrix(lambda z: F.max_pool1d(z, 3, 1), x, b, DeepLiftRule()), expected)


def test_cross_max_without_a_difference_is_zero():
    x, _ = _inputs(1, 7)
    assert _rule_matrix(lambda z: F.max_pool1d(z, 3, 1), x, x, DeepLiftRule()).abs().max() == 0


@pytest.mark.parametrize("need_weights", [True, False])
def test_multi_head_attention_and_the_encoder_layer_are_decomposed(need_weights):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(6, 2, batch_first=True).double().eval()
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True).double().eval()
    x, b = _inputs(2, 5, 6)

    def network(x):
        return layer(attention(x, x * 2, x, need_weights=need_weights)[0]).exp()

    result = run_pass(AsNetwork(network), x, DeepLiftRule(), b)
    assert result.residual(x, b) < 1e-8
    assert result.treated["softmax"] == 2
    assert relative(result.output, network(x).detach()) < 1e-6


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pooling_and_norms_in_every_rank(rank):
    torch.manual_seed(0)
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1](1, 3, 3).double()
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
    adaptive = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)[rank - 1]
    x, b = _inputs(2, 1, *[9] * rank)
    network = AsNetwork(lambda x: adaptive(pool(F.instance_norm(conv(x)), 3, 2).relu(), 2) ** 2)
    assert run_pass(network, x, DeepLiftRule(), b).residual(x, b) < 1e-10


@pytest.mark.parametrize(
    ("function", "function_name"),
    [
        (lambda x: torch.sort(x, -1)[0], "sort"),
        (lambda x: x.cumprod(-1), "cumprod"),
        (lambda x: torch.pow(x.abs() + 1, x), "pow"),
        (lambda x: x.gather(-1, x.argmax(-1, keepdim=True)), "gather"),
        (lambda x: F.dropout(x, 0.5, training=True), "dropout"),
        (lambda x: torch.linalg.det(x), "det"),
    ],
)
def test_a_function_without_a_rule_is_an_error_with_its_name(function, function_name):
    x, b = _inputs(2, 4, 4, seed=2)
    with pytest.raises(RuleError, match=function_name):
        run_pass(AsNetwork(function), x, DeepLiftRule(), b, _total)
    assert any(function_name in text for text in _warned(function, x, b))


def _warned(function, x, b):
    return run_pass(AsNetwork(function), x, DeepLiftRule(on_unknown="warn"), b, _total).warnings


def test_a_mask_of_other_values_of_the_image_is_an_error():
    x, b = _inputs(1, 1, 6)
    b[..., 3:] = x[..., 3:]
    with pytest.raises(RuleError, match="mul with a mask"):
        run_pass(AsNetwork(lambda x: x * (x.flip(-1) > 0)), x, DeepLiftRule(), b)


def test_unknown_functions_of_weights_alone_do_not_matter():
    weight = nn.Parameter(torch.rand(4, 4, dtype=F64))
    x, b = _inputs(2, 4, 4)
    network = AsNetwork(
        lambda x: F.relu(x @ torch.linalg.inv(weight + 4 * torch.eye(4, dtype=F64)))
    )
    result = run_pass(network, x, DeepLiftRule(), b)
    assert result.residual(x, b) < 1e-10
    assert result.treated == {"relu": 1}


def test_recurrent_networks_are_refused_by_every_rule():
    recurrent = nn.LSTM(4, 3).double()
    network = AsNetwork(lambda x: recurrent(x)[0])
    x, b = _inputs(2, 4, 4)
    for rule in (Guided(), Deconvnet(), DeepLiftRule()):
        with pytest.raises(RuleError, match="lstm"):
            run_pass(network, x, rule, b)


TIED_POOLS = {
    "max_pool": lambda x: F.max_pool2d(x, 2),
    "overlapping": lambda x: F.max_pool2d(x, 3, 2, 1),
    "dilated": lambda x: F.max_pool2d(x, 2, 1, 0, 2),
    "ceil": lambda x: F.max_pool2d(x, (3, 2), (2, 3), (1, 0), ceil_mode=True),
    "adaptive": lambda x: F.adaptive_max_pool2d(x, (3, 2)),
    "volume": lambda x: F.max_pool3d(x.unsqueeze(2).expand(-1, -1, 3, -1, -1), 2, 1),
    "amax": lambda x: x.amax((2, 3)),
    "max": lambda x: x.max(),
}


def _credit(function, x, b):
    def score(output):
        return output.flatten().sum()[None]

    return (x - b) * run_pass(AsNetwork(function), x, DeepLiftRule(), b, score).gradient


def _below_zero(seed=0):
    source = torch.Generator().manual_seed(seed)
    return -torch.rand(1, 2, 7, 6, dtype=F64, generator=source) - 0.1


@pytest.mark.parametrize("name", sorted(TIED_POOLS))
def test_ties_of_a_constant_baseline_are_shared_out(name):
    """The image is lower, so that all voxels of a window win in the baseline: each its part."""
    function, x = TIED_POOLS[name], _below_zero()
    credit = _credit(function, x, torch.zeros_like(x))
    assert float(credit.sum()) == pytest.approx(float(function(x).sum()), rel=1e-10)
    members = _members(function, x)
    values = function(x).flatten()
    expected = (members * (values / members.sum(1))[:, None]).sum(0).view_as(x)
    assert torch.allclose(credit, expected, rtol=1e-10)


def _members(function, x):
    """Which voxels each output of a maximum reads: raising one of them raises the output."""
    columns = []
    for index in range(x.numel()):
        raised = torch.zeros_like(x)
        raised.view(-1)[index] = 1
        columns.append(function(raised).flatten() > 0)
    return torch.stack(columns, 1).double()


def test_a_hair_of_the_baseline_moves_no_more_than_the_mean_over_hairs():
    x, source = _below_zero(1), torch.Generator().manual_seed(0)
    function = TIED_POOLS["max_pool"]
    hairs = [1e-9 * torch.rand(x.shape, dtype=F64, generator=source) for _ in range(300)]
    broken = torch.stack([_credit(function, x, hair) for hair in hairs]).mean(0)
    assert torch.allclose(broken, _credit(function, x, torch.zeros_like(x)), rtol=0.5)


def test_without_ties_one_voxel_wins():
    x, b = _below_zero(2), _below_zero(3)
    credit = _credit(lambda image: F.max_pool2d(image, 2), x, b)
    windows = credit[..., :6, :].unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    assert int((windows != 0).sum(-1).amax()) == 1
