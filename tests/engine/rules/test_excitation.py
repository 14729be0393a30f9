"""Excitation backprop of each function, derived again by dense algebra through the Jacobian."""

import math

import pytest
import torch
import torch.nn.functional as F
from rule_passes import AsNetwork
from test_redistribution import COPIES, IMAGE, STRUCTURAL, WEIGHTED
from torch import nn

from voxplain.engine.rules import Excitation, guard
from voxplain.errors import RuleError, TargetError
from voxplain.targets import Term, WeightField

F64 = torch.float64


def _draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=F64)


def _run(function, x, rule=None):
    """The output under the rule in its graph, its leaf and the mode."""
    leaf = x.clone().requires_grad_()
    network = function if isinstance(function, nn.Module) else AsNetwork(function)
    with guard(network), (rule or Excitation()).mode() as mode:
        output = network(leaf)
    assert torch.equal(output, network(x))
    return output, leaf, mode


def _probability(function, x, q=None):
    """Rows: outputs; columns: inputs; the probabilities of the inputs for 1 at each output."""
    output, leaf, _ = _run(function, x)
    if q is not None:
        return torch.autograd.grad(output, leaf, q)[0]
    rows = []
    for i in range(output.numel()):
        one = torch.zeros(output.numel(), dtype=x.dtype)
        one[i] = 1
        seed = one.reshape(output.shape)
        (row,) = torch.autograd.grad(output, leaf, seed, retain_graph=True)
        rows.append(row.flatten())
    return torch.stack(rows)


def _jacobian(function, x):
    return torch.autograd.functional.jacobian(function, torch.zeros_like(x)).reshape(-1, x.numel())


def _winning(weights, x):
    """p = x+ * W+ / z row by row, 0 where z = 0."""
    positive = weights.clamp(min=0) * x.clamp(min=0).flatten()
    z = positive.sum(1, keepdim=True)
    return torch.where(z > 0, positive / z, 0.0)


def _close(one, other):
    assert one.shape == other.shape
    assert float(other.abs().max()) > 0, "nothing is compared"
    assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


ELEMENTWISE = ("factor", "number", "divisor", "stored statistics")


@pytest.mark.parametrize("name", [name for name in WEIGHTED if name not in ELEMENTWISE])
def test_weights_redistribute_to_the_inputs_that_raise(name):
    shape, function = WEIGHTED[name]
    x = _draw(*shape, seed=9)
    winning = _winning(_jacobian(function, x), x)
    _close(_probability(function, x), winning)
    output, leaf, mode = _run(function, x)
    torch.autograd.grad(output, leaf, torch.ones_like(output))
    assert mode.residuals() == {"unraised": int((winning.sum(1) == 0).sum())}


@pytest.mark.parametrize("name", STRUCTURAL)
def test_means_and_interpolations_redistribute_to_the_inputs_that_raise(name):
    shape, function = STRUCTURAL[name]
    x = _draw(*shape, seed=9)
    _close(_probability(function, x), _winning(_jacobian(function, x), x))


@pytest.mark.parametrize("name", ["linear", "conv2d", "conv_transpose2d, positional", "matmul"])
def test_evidence_against_goes_through_negated_weights(name):
    shape, function = WEIGHTED[name]
    x = _draw(*shape, seed=9)
    rows = _winning(-_jacobian(function, x), x)
    most = int(rows.sum(1).argmax())
    q = -torch.eye(len(rows), dtype=F64)[most].reshape(function(x).shape)
    against = rows[most].reshape(shape)
    _close(_probability(function, x, q), against)


@pytest.mark.parametrize("function", [*COPIES.values()])
def test_copies_redistribute_everything_to_their_origin(function):
    x = _draw(*IMAGE, seed=9)
    _close(_probability(function, x), _jacobian(function, x))


@pytest.mark.parametrize(
    "function",
    [
        F.relu,
        F.leaky_relu,
        F.gelu,
        F.softplus,
        torch.sigmoid,
        torch.tanh,
        lambda x: x.clamp(-0.5, 0.5),
        lambda x: F.prelu(x, torch.full((4,), 0.3, dtype=F64)),
        lambda x: F.elu(x * 1, inplace=True),
        lambda x: torch.softmax(x, 1),
        lambda x: F.log_softmax(x, 1),
        F.instance_norm,
        lambda x: F.group_norm(x, 2, _draw(4, seed=1)),
        lambda x: F.layer_norm(x, (6, 6)),
        lambda x: F.rms_norm(x, (6,)),
        lambda x: F.batch_norm(x, _draw(4), _draw(4).square(), -_draw(4).abs()),
        lambda x: F.normalize(x, dim=1),
        lambda x: F.dropout(x, 0.5, training=False),
        lambda x: 3 * x / 2 + 1,
        lambda x: x - x.detach().mean(),
        lambda x: torch.add(torch.ones(6, dtype=F64), x, alpha=3),
        lambda x: x / x.std(1, keepdim=True),
        lambda x: (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 1e-5).sqrt(),
    ],
)
def test_functions_that_pass_probability_unchanged(function):
    x = _draw(*IMAGE, seed=9)
    q = _draw(*IMAGE, seed=3).abs()
    _close(_probability(function, x, q), q)


@pytest.mark.parametrize("inplace", [False, True])
def test_branches_get_probability_by_their_positive_parts(inplace):
    x = torch.tensor([[2.0, -1.0, -1.0, 3.0, 0.0], [6.0, 4.0, -2.0, 0.0, 0.0]], dtype=F64)

    def function(x):
        u, v = (x * 1).unbind(0)
        u, v = u.clone(), v.clone()
        if not inplace:
            return u + v
        u += v
        return u

    q = torch.ones(5, dtype=F64)
    expected = torch.tensor([[0.25, 0, 0.5, 1, 0.5], [0.75, 1, 0.5, 0, 0.5]], dtype=F64)
    _close(_probability(function, x, q), expected)


def test_branches_of_different_shapes_and_factors():
    x = _draw(3, 4).abs()
    u, v = x[:2, :, None], x[2:, None, :]
    q = torch.ones(2, 4, 4, dtype=F64)
    probability = _probability(lambda x: torch.add(x[:2, :, None], x[2:, None, :], alpha=3), x, q)
    expected = torch.cat([(u / (u + 3 * v)).sum(2), (3 * v / (u + 3 * v)).sum((0, 1))[None]])
    _close(probability, expected)


def test_a_subtrahend_gets_evidence_against():
    x = torch.tensor([[2.0, -1.0], [1.0, 3.0]], dtype=F64)
    q = torch.tensor([1.0, -1.0], dtype=F64)
    # -1 - 3 is lowered by both: a quarter by the minuend, three quarters by the subtrahend
    expected = torch.tensor([[1.0, -0.25], [0.0, 0.75]], dtype=F64)
    _close(_probability(lambda x: x[0] - x[1], x, q), expected)
    _close(_probability(lambda x: torch.rsub(x[1], x[0]), x, q), expected)


def test_a_negative_factor_loses_evidence_and_reports_it():
    x = _draw(6)
    output, leaf, mode = _run(lambda x: torch.cat([-x, x * -2.0, 1 - x, x]), x)
    (probability,) = torch.autograd.grad(output, leaf, torch.ones_like(output))
    _close(probability, torch.ones(6, dtype=F64))
    assert mode.residuals() == {"unraised": 18.0}
    (probability,) = torch.autograd.grad(*_run(lambda x: -x, x)[:2], -torch.ones_like(x))
    _close(probability, torch.ones(6, dtype=F64))


def test_negative_evidence_at_a_mean_goes_to_negative_elements():
    x = torch.tensor([[2.0, -1.0, -3.0]], dtype=F64)
    probability = _probability(lambda x: x.mean(1), x, torch.tensor([-1.0], dtype=F64))
    _close(probability, torch.tensor([[0, -0.25, -0.75]], dtype=F64))


GATES = {
    "sigmoid": lambda u, v: u * v.sigmoid(),
    "sigmoid first": lambda u, v: v.sigmoid() * u,
    "in place": lambda u, v: u.clone().mul_(v.sigmoid()),
    "in place of the gate": lambda u, v: v.sigmoid().mul_(u),
    "through views": lambda u, v: u * v.mean((2, 3)).sigmoid().view(2, 2, 1, 1).expand_as(u),
    "resampled": lambda u, v: u * F.interpolate(F.avg_pool2d(v, 2).sigmoid(), scale_factor=2),
    "one minus": lambda u, v: u * (1 - v.sigmoid()),
    "hard": lambda u, v: F.hardsigmoid(v) * u,
    "softmax": lambda u, v: u * torch.softmax(v, 1),
    "swish by hand": lambda u, v: u * torch.sigmoid(u) + 0 * v.detach(),
    "weak and strong": lambda u, v: torch.sigmoid(v) * torch.tanh(u),
    "glu": lambda u, v: F.glu(torch.cat([u, v], 1), 1),
    "quotient": lambda u, v: u / v.exp(),
    "mask": lambda u, v: u * (v > -9),
}


@pytest.mark.parametrize("name", GATES)
def test_gated_products_give_everything_to_the_signal(name):
    x = _draw(2, 4, 6, 6)
    q = _draw(2, 2, 6, 6, seed=3).abs()
    probability = _probability(lambda x: GATES[name](x[:, :2], x[:, 2:]), x, q)
    _close(probability, torch.cat([q, torch.zeros_like(q)], 1))


def test_a_signal_of_one_channel_sums_over_its_gates():
    x = _draw(2, 3, 4, 4)
    q = _draw(2, 3, 4, 4, seed=3).abs()
    probability = _probability(lambda x: x[:, :1] * x.sigmoid(), x, q)
    _close(probability[:, :1], q.sum(1, keepdim=True))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.max_pool2d(x, 3, 2, 1),
        lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
        lambda x: F.adaptive_max_pool2d(x, 4),
        lambda x: x.amax((2, 3)),
        lambda x: x.max(1)[0],
        lambda x: torch.maximum(x, x.flip(1)),
    ],
)
def test_the_winner_of_a_maximum_gets_everything(function):
    x = _draw(*IMAGE)
    rows = _probability(function, x)
    assert torch.equal(rows.sum(1), torch.ones(len(rows), dtype=F64))
    _close(rows @ x.flatten(), function(x).flatten())


def _attention_redistribution(weights, values):
    """Each output (row i, feature d) gives A_ij v+_jd / sum_j A_ij v+_jd to value (j, d)."""
    positive = weights[..., :, :, None] * values.clamp(min=0)[..., None, :, :]
    return (positive / positive.sum(-2, keepdim=True)).nan_to_num(0)


def _by_einsum(q, k, v):
    weights = torch.einsum("bhxd,bhyd->bhxy", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("bhxy,bhyd->bhxd", weights.softmax(-1), v)


def _by_matmul(q, k, v):
    weights = torch.softmax((q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1), -1)
    return F.dropout(weights, 0.1, training=False).to(v.dtype) @ v


def _by_bmm(q, k, v):
    flat = [tensor.flatten(0, 1) for tensor in (q, k, v)]
    logits = torch.baddbmm(torch.zeros(()).to(q), flat[0], flat[1].mT, alpha=q.shape[-1] ** -0.5)
    return torch.bmm(logits.softmax(-1), flat[2]).reshape(q.shape)


@pytest.mark.parametrize(
    "function", [F.scaled_dot_product_attention, _by_einsum, _by_matmul, _by_bmm]
)
def test_attention_gives_everything_to_the_values_by_frozen_weights(function):
    x = _draw(3, 2, 2, 5, 4)
    q = _draw(2, 2, 5, 4, seed=3).abs()
    probability = _probability(lambda x: function(x[0], x[1], x[2]), x, q)
    weights = torch.softmax(x[0] @ x[1].mT / 2, -1)
    shares = _attention_redistribution(weights, x[2])
    _close(probability[2], (q[..., :, None, :] * shares).sum(-3))
    assert float(probability[:2].abs().max()) == 0


@pytest.mark.parametrize("need_weights", [True, False])
def test_multi_head_attention_equals_attention_by_hand(need_weights):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(6, 2, batch_first=True, dtype=F64).eval()
    x, q = _draw(2, 5, 6), _draw(2, 5, 6, seed=3).abs()

    def by_hand(x):
        projected = F.linear(x, layer.in_proj_weight, layer.in_proj_bias)
        heads = projected.unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        values = _by_einsum(heads[0], heads[1], heads[2]).transpose(1, 2).flatten(2)
        return F.linear(values, layer.out_proj.weight, layer.out_proj.bias)

    leaf = x.clone().requires_grad_()
    with Excitation().mode():
        output, _ = layer(leaf, leaf, leaf, need_weights=need_weights)
    assert torch.allclose(output, by_hand(x))
    (probability,) = torch.autograd.grad(output, leaf, q)
    _close(probability, _probability(by_hand, x, q))


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.exp, "exp"),
        (lambda x: x.square(), "square"),
        (lambda x: x * x.flip(1), "mul"),
        (lambda x: x @ x.mT, "matmul"),
        (lambda x: 2 / x, "rdiv"),
        (lambda x: x.logsumexp(1), "logsumexp"),
        (lambda x: x.var(1), "var"),
        (lambda x: x.norm(dim=1), "sqrt"),
        (lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), "interpolate"),
        (lambda x: F.dropout(x, 0.5, training=True), "dropout"),
        (lambda x: torch.fft.fft(x).real, "fft"),
        (lambda x: F.conv2d(x, x[:1].expand(2, 4, 6, 6)), "conv2d"),
    ],
)
def test_a_function_without_a_rule_is_an_error_once_probability_reaches_it(function, name):
    leaf = _draw(*IMAGE).requires_grad_()
    with Excitation().mode():
        output = function(leaf)
        gated = leaf.mean((1, 2, 3)) * output.flatten(1).sum(1).sigmoid()
    with pytest.raises(RuleError, match=rf"no rule for {name}.*called in test_excitation, line"):
        torch.autograd.grad(output.sum(), leaf)
    assert torch.autograd.grad(gated.sum(), leaf)[0].abs().sum() > 0, "it only makes the gate here"


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.cat([torch.ones(2, 3, dtype=F64), x]),
        lambda x: torch.cat([x, torch.ones(4, 1, dtype=F64), x, torch.ones(4, 1, dtype=F64)], 1),
        lambda x: torch.stack((x, torch.ones(4, 3, dtype=F64)), dim=1)[:2],
        lambda x: torch.where(torch.arange(3) < 1, x, torch.ones((), dtype=F64))[:3],
        lambda x: x.masked_fill(torch.arange(3) > 1, 3.0),
        lambda x: torch.where(torch.arange(3) < 1, x, 0.0),
    ],
)
def test_probability_of_constants_is_counted_as_lost(function):
    x = _draw(4, 3)
    output, leaf, mode = _run(function, x)
    q = _draw(*output.shape, seed=3).abs()
    (probability,) = torch.autograd.grad(output, leaf, q)
    expected = q.flatten() @ _jacobian(function, x)
    _close(probability.flatten(), expected)
    assert mode.residuals()["unraised"] == pytest.approx(float(q.sum() - expected.sum()))
    assert mode.residuals()["unraised"] > 0


def test_on_unknown_warn_gives_the_plain_gradient_with_a_warning():
    x = _draw(3, 4)
    output, leaf, mode = _run(torch.exp, x, Excitation(on_unknown="warn"))
    (probability,) = torch.autograd.grad(output.sum(), leaf)
    _close(probability, x.exp())
    assert mode.warnings == ["excitation backprop has no rule for exp; it got the plain gradient"]


def test_recurrent_layers_and_unknown_functions_are_refused():
    lstm = nn.LSTM(4, 3, dtype=F64)
    with pytest.raises(RuleError, match=r"lstm.*hides its gates"):
        _run(lambda x: lstm(x)[0], _draw(5, 4))
    with pytest.raises(RuleError, match=r"no rule for .*cdist"):
        _run(lambda x: torch.cdist(x, x), _draw(5, 4))


def _field(*weights):
    terms = tuple(Term(weight, "probability") for weight in weights)
    return WeightField(terms, torch.ones(len(weights[0])), ("",) * len(weights[0]))


def test_the_seed_is_the_weights_over_their_sum_without_link_or_offset():
    weights = _draw(2, 3, 4).abs()
    probability = Excitation().seed_field(_field(weights, weights))
    assert probability.is_linear
    assert float(probability.offset.abs().max()) == 0
    _close(probability.cotangent(weights), weights / weights.sum((1, 2), keepdim=True))
    _close(
        Excitation(against=True).seed_field(_field(weights)).cotangent(weights).sum((1, 2)),
        -_ones(),
    )


def _ones():
    return torch.ones(2, dtype=F64)


def test_weights_of_both_signs_are_refused_naming_the_contrastive_form():
    with pytest.raises(TargetError, match="contrastive_excitation_backprop"):
        Excitation().seed_field(_field(_draw(2, 3, 4)))
    weights = _draw(2, 3, 4).abs() * torch.tensor([1.0, -1]).reshape(2, 1, 1)
    signs = Excitation().seed_field(_field(weights)).cotangent(weights).sum((1, 2))
    _close(signs, torch.tensor([1.0, -1], dtype=F64))
