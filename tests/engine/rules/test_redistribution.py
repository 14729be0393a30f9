"""Linear calls as maps: value, adjoint and bias against the Jacobian of the bare function."""

import pytest
import torch
import torch.nn.functional as F
from rule_passes import relative

from voxplain.engine.rules import RuleMode
from voxplain.engine.rules.calls import OperationKind
from voxplain.engine.rules.redistribution import LinearMap, linear_map, with_redistribution
from voxplain.engine.rules.substitutes import write_result
from voxplain.errors import RuleError

F64 = torch.float64


def _draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=F64)


def _stored(x):
    mean, spread = _draw(4, seed=3), _draw(4, seed=4).square() + 0.5
    return F.batch_norm(x, mean, spread, _draw(4, seed=5), _draw(4, seed=6), eps=0.1)


IMAGE = (2, 4, 6, 6)
WEIGHTED = {
    "linear": ((2, 6), lambda x: F.linear(x, _draw(5, 6, seed=1), _draw(5, seed=2))),
    "conv1d": ((2, 4, 7), lambda x: F.conv1d(x, _draw(3, 4, 3, seed=1), _draw(3, seed=2), 2)),
    "conv2d": (
        IMAGE,
        lambda x: F.conv2d(x, _draw(6, 2, 3, 3, seed=1), _draw(6, seed=2), 2, 1, groups=2),
    ),
    "conv3d, positional": (
        (1, 2, 4, 4, 4),
        lambda x: F.conv3d(x, _draw(3, 2, 2, 2, 2, seed=1), _draw(3, seed=2), 1, 1, 2),
    ),
    "unbatched conv": (
        (2, 5, 5),
        lambda x: F.conv2d(x, _draw(3, 2, 2, 2, seed=1), _draw(3, seed=2)),
    ),
    "conv_transpose2d, positional": (
        IMAGE,
        lambda x: F.conv_transpose2d(x, _draw(4, 3, 3, 3, seed=1), _draw(3, seed=2), 2, 1, 1),
    ),
    "matmul": ((3, 4), lambda x: x @ _draw(4, 2, seed=1)),
    "matmul from the left": ((3, 4), lambda x: _draw(2, 3, seed=1) @ x),
    "bmm": ((2, 3, 4), lambda x: torch.bmm(_draw(2, 5, 3, seed=1), x)),
    "einsum": ((2, 3, 4), lambda x: torch.einsum("xy,bxd->byd", _draw(3, 5, seed=1), x)),
    "factor": (IMAGE, lambda x: x * _draw(4, 1, 1, seed=1)),
    "number": (IMAGE, lambda x: -0.5 * x),
    "divisor": (IMAGE, lambda x: x / _draw(4, 1, 1, seed=1)),
    "stored statistics": (IMAGE, _stored),
}
STRUCTURAL = {
    "avg_pool": (IMAGE, lambda x: F.avg_pool2d(x, 3, 2, 1)),
    "avg_pool with a tuple": (IMAGE, lambda x: F.avg_pool2d(x, (3, 2), stride=(1, 2))),
    "adaptive_avg_pool": (IMAGE, lambda x: F.adaptive_avg_pool2d(x, (4, 1))),
    "interpolate": (
        IMAGE,
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
    ),
    "interpolate, positional": (IMAGE, lambda x: F.interpolate(x, (9, 4), None, "bilinear")),
    "area": (IMAGE, lambda x: F.interpolate(x, (4, 4), mode="area")),
    "mean": (IMAGE, lambda x: x.mean((2, 3), keepdim=True)),
    "mean of all": (IMAGE, lambda x: torch.mean(x)),
    "sum by NumPy's name": (IMAGE, lambda x: x.sum(axis=1)),
    "sum by keyword": (IMAGE, lambda x: torch.sum(input=x, dim=(0, 1))),
    "cumsum": ((3, 4), lambda x: x.cumsum(1)),
    "fold": ((1, 8, 9), lambda x: F.fold(x, (4, 4), 2)),
    "einsum of one": ((2, 3), lambda x: torch.einsum("ij->i", x)),
}
COPIES = {
    "view": lambda x: x.reshape(2, -1),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "pad": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "cat": lambda x: torch.cat([x, x], 1),
    "index": lambda x: x[:, 1:, ::2],
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
}


class _LastCall(RuleMode):
    """Records the last call that depends on the image."""

    def treat(self, call, native):
        if self.depends(*call.operands()):
            self.call = call
        return native()


def _call(function, x):
    leaf = x.clone().requires_grad_()
    with _LastCall() as mode:
        function(leaf)
    return mode.call


def _map(function, x):
    call = _call(function, x)
    operand = "input"
    if call.kind is OperationKind.BILINEAR:
        names = call.operation.parameters[:2]
        operand = next((key for key in names if _requires_grad(call, key)), 0)
        if call.name == "einsum":
            operand = next(
                i for i, tensor in enumerate(call.get("operands")) if tensor.requires_grad
            )
    return linear_map(call, operand)


def _requires_grad(call, key):
    return getattr(call.get(key), "requires_grad", False)


def _close(one, other):
    assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("shape", "function"), [*WEIGHTED.values(), *STRUCTURAL.values()])
def test_a_linear_call_is_its_jacobian(shape, function):
    x = _draw(*shape, seed=9)
    linear = _map(function, x)
    zero = torch.zeros_like(x)
    jacobian = torch.autograd.functional.jacobian(function, zero)
    rows = jacobian.reshape(-1, x.numel())
    value = function(x)
    _close(linear.apply(x).flatten(), rows @ x.flatten())
    bias = linear.apply(zero) if linear.bias is None else linear.bias.expand_as(value)
    _close(linear.apply(x) + bias, value)
    q = _draw(*value.shape, seed=8)
    _close(linear.adjoint(q, x).flatten(), rows.T @ q.flatten())


@pytest.mark.parametrize(("shape", "function"), WEIGHTED.values())
def test_changed_weights_change_the_entries_of_the_jacobian(shape, function):
    x = _draw(*shape, seed=9)
    linear = _map(function, x).with_weight(lambda weight: weight.clamp(min=0))
    rows = torch.autograd.functional.jacobian(function, torch.zeros_like(x))
    rows = rows.reshape(-1, x.numel()).clamp(min=0)
    _close(linear.apply(x).flatten(), rows @ x.flatten())


@pytest.mark.parametrize(("shape", "function"), STRUCTURAL.values())
def test_weights_of_the_function_itself_are_left_as_they_are(shape, function):
    linear = _map(function, _draw(*shape))
    assert linear.weight is None
    assert linear.with_weight(lambda weight: weight * 0) is linear
    rows = torch.autograd.functional.jacobian(function, torch.zeros(shape, dtype=F64))
    assert float(rows.min()) >= 0


@pytest.mark.parametrize("function", COPIES.values())
def test_copies_need_no_map(function):
    assert linear_map(_call(function, _draw(*IMAGE))) is None


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
        lambda x: x + x.flip(0),
        torch.diff,
        torch.sigmoid,
        lambda x: 2 / x,
        lambda x: F.batch_norm(x, None, None, training=True),
    ],
)
def test_calls_that_are_not_linear_in_one_operand_are_errors(function):
    with pytest.raises(RuleError, match="not a linear map"):
        linear_map(_call(function, _draw(*IMAGE)))


def test_any_backward_takes_the_place_of_the_gradient():
    x = _draw(3, 4).requires_grad_()
    u, v = x * 1, x * 2
    value = (u * v).detach()
    saved = (u.detach(), v.detach())
    output = with_redistribution(value, (u, v), lambda q, a, b: (q * a, q + b), saved)
    assert torch.equal(output, value)
    (gradient,) = torch.autograd.grad((output * 3).sum(), x)
    _close(gradient, 3 * saved[0] + 2 * (3 + saved[1]))


def test_an_operand_without_a_part_gets_no_gradient():
    x = _draw(3).requires_grad_()
    u, v = x * 1, x.sigmoid()
    gated = with_redistribution((u * v).detach(), (u, v), lambda q: (q, None))
    dead = with_redistribution(gated.detach(), (v,), lambda q: (q / 0,))
    first = with_redistribution(gated.detach(), (gated, dead), lambda q: (q, None))
    (gradient,) = torch.autograd.grad(first.sum(), x)
    assert torch.equal(gradient, torch.ones(3, dtype=F64))


def test_saved_tensors_must_not_be_overwritten():
    x = _draw(3).requires_grad_()
    u = x * 1
    output = with_redistribution(u.detach() * 2, (u,), lambda q, a: (q * a,), (u.detach(),))
    u.detach().add_(1)
    with pytest.raises(RuntimeError, match="inplace operation"):
        output.sum().backward()


def test_in_place_calls_are_written_to_the_caller():
    class Doubling(RuleMode):
        def treat(self, call, native):
            if call.name != "relu":
                return native()
            value = call.detached().run()
            return write_result(call, with_redistribution(value, (call.input,), lambda q: (2 * q,)))

    x = _draw(5).requires_grad_()
    with Doubling():
        y = x * 1
        y.relu_()
    assert torch.equal(y, F.relu(x))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.tolist() == [2] * 5


def test_a_linear_map_from_a_function_and_a_weight():
    linear = LinearMap(lambda x, weight: x @ weight, torch.eye(3, dtype=F64))
    x = _draw(2, 3)
    assert relative(linear.apply(x), x) == 0
