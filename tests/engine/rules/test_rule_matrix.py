"""The thirteen MONAI networks under Plain, Guided, Deconvnet and DeepLIFT."""

import pytest
import torch
from matrix import MATRIX, image, network, score
from rule_passes import GRADIENTS, blurred, relative, run_pass
from torch import nn

from voxplain.attribution.audit import audit
from voxplain.engine.rules import DeepLiftRule

GATED = ("guided", "deconvnet", "deep_lift")


def _three_d():
    heavy = [name for name, row in MATRIX.items() if row.heavy]
    light = [pytest.param(name, 3, True) for name in MATRIX if name not in heavy]
    full = [pytest.param(name, 3, False, marks=pytest.mark.slow) for name in MATRIX]
    return [*light, *full]


def _every():
    flat = [pytest.param(name, 2, True) for name in MATRIX]
    return [*flat, *_three_d()]


@pytest.mark.parametrize(("name", "rank", "light"), _every())
def test_the_audit_lists_the_calls_and_every_rule_is_covered(name, rank, light):
    net, x = network(name, rank), image(name, rank, light=light)
    result = audit(net, x)
    expected = {key.replace("3d", f"{rank}d"): n for key, n in MATRIX[name].nonlinear.items()}
    assert result.nonlinear == expected
    assert result.unknown == ()
    assert result.invisible == ()
    assert result.failures == {}
    assert max(result.forward_difference.values()) <= 1e-6
    assert result.completeness["zero"] <= 1e-8
    assert result.completeness["blurred"] <= 1e-8
    assert result.guided_equals_plain is False
    assert all(result.covered(rule) for rule in GRADIENTS)


@pytest.mark.parametrize(("name", "rank", "light"), _three_d())
def test_float32_is_complete_and_the_network_is_left_alone(name, rank, light):
    net, x = network(name, rank), image(name, rank, light=light)
    before = _state(net)
    plain = run_pass(net, x, GRADIENTS["plain"], score=score)
    baseline = blurred(x)
    lift = run_pass(net, x, GRADIENTS["deep_lift"], baseline, score)
    assert lift.residual(x, baseline) <= 1e-3
    for rule in ("guided", "deconvnet"):
        changed = run_pass(net, x, GRADIENTS[rule], score=score)
        assert torch.equal(changed.output, plain.output)
        assert float((changed.gradient - plain.gradient).norm() / plain.gradient.norm()) > 1e-3
    assert torch.equal(run_pass(net, x, GRADIENTS["plain"], score=score).gradient, plain.gradient)
    assert _same_state(before, _state(net))


@pytest.mark.parametrize("name", MATRIX)
def test_rules_give_the_same_map_twice_and_in_either_order(name):
    net, x = network(name, 2), image(name, 2, light=True)
    first = {rule: run_pass(net, x, GRADIENTS[rule], blurred(x), score) for rule in GRADIENTS}
    for rule in reversed(GRADIENTS):
        again = run_pass(net, x, GRADIENTS[rule], blurred(x), score)
        assert torch.equal(again.gradient, first[rule].gradient)
        assert relative(again.output, first["plain"].output) <= 1e-6


@pytest.mark.parametrize("name", MATRIX)
def test_a_batch_of_four_is_four_times_one(name):
    net, x = network(name, 2).double(), image(name, 2, batch=4, light=True).double()
    baseline = blurred(x)
    scale = run_pass(
        net, x, GRADIENTS["plain"], score=score
    ).gradient  # a guided map may be all zero
    for rule in GRADIENTS.values():
        together = run_pass(net, x, rule, baseline, score).gradient
        for i in range(4):
            alone = run_pass(net, x[i : i + 1], rule, baseline[i : i + 1], score).gradient
            assert relative(together[i : i + 1], alone, scale) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", MATRIX)
def test_a_three_d_batch_of_four_is_four_times_one(name):
    """In float64: in float32 the plain gradient itself differs (0.005 for SwinUNETR), because
    torch picks other kernels for other batch sizes and the untrained norms amplify rounding."""
    net, x = network(name).double(), image(name, batch=4, light=True).double()
    baseline = blurred(x)
    scale = run_pass(net, x, GRADIENTS["plain"], score=score).gradient
    for rule in GRADIENTS.values():
        together = run_pass(net, x, rule, baseline, score).gradient
        alone = run_pass(net, x[2:3], rule, baseline[2:3], score).gradient
        assert relative(together[2:3], alone, scale) <= 1e-5


@pytest.mark.parametrize("name", [name for name, row in MATRIX.items() if row.unshared])
@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
def test_rules_equal_module_hooks_where_every_rectifier_is_a_module_of_its_own(name, rule):
    net, x = network(name, 2), image(name, 2, light=True)
    by_rule = run_pass(net, x, GRADIENTS[rule], score=score).gradient
    plain = run_pass(net, x, GRADIENTS["plain"], score=score).gradient
    assert relative(by_rule, _by_hooks(net, x, rule), plain) <= 1e-5


@pytest.mark.parametrize("name", ["SegResNet", "AttentionUnet", "ResNet10"])
def test_one_slice_three_d_runs_are_complete(name):
    """The networks of the matrix whose strides leave a single slice a single slice."""
    net = network(name).double()
    thin = image(name, 2, light=True).double()[..., None]
    lift = run_pass(net, thin, DeepLiftRule(), blurred(thin), score)
    assert torch.equal(lift.output, net(thin).detach())
    assert lift.residual(thin, blurred(thin)) <= 1e-8


def _state(net):
    return {
        "tensors": {key: value.clone() for key, value in net.state_dict().items()},
        "flags": [(p.requires_grad, p.grad is None) for p in net.parameters()],
        "modes": [module.training for module in net.modules()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for m in net.modules()
        ],
        "names": [sorted(vars(module)) for module in net.modules()],
        "generator": torch.get_rng_state(),
    }


def _same_state(one, other):
    same = all(torch.equal(one["tensors"][key], other["tensors"][key]) for key in one["tensors"])
    plain = all(one[key] == other[key] for key in ("flags", "modes", "hooks", "names"))
    return same and plain and torch.equal(one["generator"], other["generator"])


def _by_hooks(net, x, rule):
    """Backward hooks on the rectifier modules, the way other libraries do it."""
    kinds = (nn.ReLU, nn.PReLU, nn.LeakyReLU, nn.ELU, nn.SiLU)
    handles = []
    for module in net.modules():
        if isinstance(module, kinds):
            handles += _hooked(module, rule)
    leaf = x.clone().requires_grad_()
    try:
        (gradient,) = torch.autograd.grad(score(net(leaf)).sum(), leaf)
    finally:
        for handle in handles:
            handle.remove()
    return gradient


def _hooked(module, rule):
    def forward(module, inputs, output):
        x = inputs[0].detach().clone()
        saved["slope"] = _slope(module, x).clamp(min=0)
        return output.clone()

    def widen(module, inputs):
        return tuple(value.clone() for value in inputs)

    def backward(module, into, out):
        positive = out[0].clamp(min=0)
        return (positive * saved["slope"] if rule == "guided" else positive,)

    saved = {}
    module.inplace = False
    return [
        module.register_forward_pre_hook(widen),
        module.register_forward_hook(forward),
        module.register_full_backward_hook(backward),
    ]


def _slope(module, x):
    if isinstance(module, nn.ReLU):
        return (x > 0).to(x)
    if isinstance(module, nn.ELU):
        return torch.where(x > 0, torch.ones_like(x), module.alpha * x.exp())
    negative = module.weight.detach() if isinstance(module, nn.PReLU) else module.negative_slope
    return torch.where(x > 0, torch.ones_like(x), torch.as_tensor(negative).expand_as(x))
