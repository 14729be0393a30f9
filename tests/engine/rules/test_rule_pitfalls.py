"""Known pitfalls of function modes; tests of one pitfall share the number in their names."""

import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint as checkpointing
from rule_passes import RULES, AsNetwork, relative, run_pass
from torch import nn
from torch.utils.checkpoint import checkpoint

from voxplain.engine.rules import DeepLiftRule, Guided, Plain, guard
from voxplain.errors import RuleError

NOT_PLAIN = ("guided", "deconvnet", "deep_lift")


class Block(nn.Module):
    def __init__(self, reentrant=None):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 3)
        self.reentrant = reentrant

    def inner(self, x):
        return self.second(F.gelu(F.relu(self.first(x))).square())

    def forward(self, x):
        if self.reentrant is None:
            return self.inner(x)
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


def _inputs(batch=3):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(batch, 5, generator=generator) for _ in range(2))


@pytest.mark.parametrize("rule", NOT_PLAIN)
@pytest.mark.parametrize("reentrant", [True, False])
def test_6_checkpoints_are_switched_off_and_put_back(rule, reentrant):
    x, b = _inputs()
    names = ("CheckpointFunction", "_checkpoint_without_reentrant_generator")
    before = [getattr(checkpointing, name) for name in names]
    plain = run_pass(Block(), x, RULES[rule], b)
    result = run_pass(Block(reentrant), x, RULES[rule], b)
    assert torch.equal(result.gradient, plain.gradient)
    assert [getattr(checkpointing, name) for name in names] == before
    with guard(Block(reentrant)) as record:
        Block(reentrant)(x)
    assert record.checkpointed == 1


def test_6_without_the_guard_a_checkpoint_would_be_wrong():
    """The reason for the guard: the mode does not see the recomputed segment."""
    x, _ = _inputs()
    leaf = x.clone().requires_grad_()
    with Guided().mode() as mode:
        output = Block(False)(leaf)
    assert mode.treated == {"relu": 1, "gelu": 1}
    try:
        (result,) = torch.autograd.grad(output.sum(), leaf)
    except checkpointing.CheckpointError:
        return
    assert relative(result, run_pass(Block(), x, Guided()).gradient) > 1e-3


@pytest.mark.parametrize("rule", NOT_PLAIN)
def test_4_torchscript_and_7_data_parallel_are_refused_with_their_path(rule):
    x, b = _inputs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Sequential(nn.Linear(5, 3), nn.ReLU()))
        traced = Block()
        traced.activation = torch.jit.trace(lambda y: F.relu(y), torch.zeros(1, 5))
    inside = nn.Sequential(nn.Linear(5, 5), nn.Sequential(nn.ReLU(), scripted))
    for network, named in (
        (inside, "into 1.1: TorchScript"),
        (scripted, "TorchScript"),
        (nn.Sequential(nn.DataParallel(Block())), "into 0: nn.DataParallel"),
        (traced, r"Block.activation: a scripted or traced function"),
    ):
        with pytest.raises(RuleError, match=named):
            run_pass(network, x, RULES[rule], b)


def test_7_a_mode_sees_its_own_thread_only():
    x, _ = _inputs()
    with Guided().mode() as mode:
        worker = threading.Thread(target=lambda: Block()(x.clone().requires_grad_()))
        worker.start()
        worker.join()
    assert mode.treated == {}


@pytest.mark.parametrize("rule", NOT_PLAIN)
def test_7_threads_with_rules_of_their_own_do_not_mix(rule):
    x, b = _inputs()
    block = Block()  # made once: it sets the seed of the whole process
    alone = run_pass(block, x, RULES[rule], b).gradient
    result = {}

    def work(name):
        result[name] = run_pass(block, x, RULES[name], b).gradient

    workers = [threading.Thread(target=work, args=(name,)) for name in (rule, "guided", rule)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert torch.equal(result[rule], alone)


@pytest.mark.parametrize("rule", NOT_PLAIN)
def test_5_compiled_networks_run_eagerly_under_a_rule(rule):
    x, b = _inputs()
    compiled = torch.compile(Block(), backend="eager")
    first = compiled(x)
    before = dict(torch._dynamo.utils.counters["stats"])
    result = run_pass(compiled, x, RULES[rule], b)
    assert dict(torch._dynamo.utils.counters["stats"]) == before, "nothing was compiled again"
    assert torch.equal(result.gradient, run_pass(Block(), x, RULES[rule], b).gradient)
    assert torch.equal(compiled(x), first)


@torch.jit.script
def _scripted(x):
    return torch.relu(x)


def _doubled_in_a_thread(x):
    result = []
    worker = threading.Thread(target=lambda: result.append(F.relu(x)))
    worker.start()
    worker.join()
    return result[0] * 2


@pytest.mark.parametrize("rule", [Guided(), DeepLiftRule()])
@pytest.mark.parametrize("function", [lambda x: _scripted(x) * 2, _doubled_in_a_thread])
def test_4_and_7_the_graph_shows_calls_that_the_mode_did_not_see(function, rule):
    x, b = _inputs()
    for network, count in ((AsNetwork(function), 1), (Block(), 0)):
        leaf = x.clone().requires_grad_()
        if rule.paired:
            with torch.no_grad(), rule.record() as recording:
                network(b)
        with rule.replay(recording) if rule.paired else rule.mode():
            output = network(leaf)
        assert len(rule.unseen(output, leaf)) == count
    assert Plain().unseen(output, leaf) == []


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, q):
        return q * (ctx.saved_tensors[0] > 0)


def test_8_a_custom_autograd_function_is_an_error_for_deep_lift_and_a_remark_for_guided():
    x, b = _inputs()
    network = AsNetwork(lambda x: Doubled.apply(x * 2).relu() + 1)
    with pytest.raises(RuleError, match=r"custom autograd function .*Doubled"):
        run_pass(network, x, DeepLiftRule(), b)
    assert "Doubled" in run_pass(network, x, Guided()).warnings[0]
    with pytest.raises(RuleError, match="Doubled"):
        run_pass(network, x, Guided(on_unknown="error"))


def test_9_rules_work_under_vmapped_backward():
    """Several targets in one backward, as ``is_grads_batched`` does with vmap."""
    x, _ = _inputs()
    leaf = x.clone().requires_grad_()
    with Guided().mode():
        output = Block()(leaf)
    units = torch.eye(3)[:, None, :].expand(3, *output.shape)
    (batched,) = torch.autograd.grad(
        output, leaf, units.contiguous(), is_grads_batched=True, retain_graph=True
    )
    for unit, result in zip(units, batched, strict=True):
        (one,) = torch.autograd.grad(output, leaf, unit, retain_graph=True)
        assert torch.allclose(result, one)


def test_11_a_function_of_the_user_with_a_known_name_is_not_matched():
    x, b = _inputs()

    def relu(x):
        return torch.tanh(x)

    assert run_pass(AsNetwork(relu), x, DeepLiftRule(), b).treated == {"tanh": 1}


def test_12_batches_that_are_folded_into_another_axis_are_paired_by_call():
    x, b = (t.double() for t in _inputs(4))

    def network(x):
        folded = x.reshape(2, 2, 5).transpose(0, 1).reshape(2, 10)
        stacked = torch.stack([folded, folded.exp(), folded**2])
        return (stacked.softmax(-1)[0] * stacked[1]).reshape(4, 5)

    result = run_pass(AsNetwork(network), x, DeepLiftRule(), b)
    change = float((result.scores - result.start_scores).sum())
    assert abs(float(((x - b) * result.gradient).sum()) - change) < 1e-10


def test_12_a_branch_on_the_data_is_an_error():
    def network(x):
        return F.relu(x) if x.sum() > 0 else torch.tanh(x)

    def longer(x):
        return F.relu(x).exp() if x.sum() > 0 else F.relu(x)

    x, b = torch.ones(1, 3), -torch.ones(1, 3)
    with pytest.raises(RuleError, match="control flow"):
        run_pass(AsNetwork(network), x, DeepLiftRule(), b)
    with pytest.raises(RuleError, match=r"exp.*no counterpart"):
        run_pass(AsNetwork(longer), x, DeepLiftRule(), b)
    with pytest.raises(RuleError, match="exp was called for the baseline alone"):
        run_pass(AsNetwork(longer), b, DeepLiftRule(), x)


@pytest.mark.parametrize("rule", NOT_PLAIN)
def test_14_autocast_to_bfloat16_agrees_with_float32(rule):
    x, b = _inputs()
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(5, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 16), nn.Softmax(1),
        nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3),
    )  # fmt: skip

    def half(x):
        with torch.autocast("cpu", torch.bfloat16):
            return network(x)

    full = run_pass(network, x, RULES[rule], b).gradient
    result = run_pass(AsNetwork(half), x, RULES[rule], b)
    assert result.output.dtype == torch.bfloat16
    assert torch.equal(result.output, half(x))
    assert float(F.cosine_similarity(result.gradient.flatten(), full.flatten(), 0)) > 0.99


@pytest.mark.parametrize("rule", NOT_PLAIN)
def test_15_calls_without_a_gradient_are_not_treated(rule):
    x, b = _inputs()

    def network(x):
        with torch.no_grad():
            F.relu(x).exp()
        nn.init.normal_(torch.empty(3))
        return F.relu(x) * 2

    assert run_pass(AsNetwork(network), x, RULES[rule], b).treated == {"relu": 1}


def test_15_a_reference_overwritten_in_place_is_kept_as_it_was():
    x, b = (t.double() for t in _inputs())

    def network(x):
        y = x * 2
        z = torch.sigmoid(y)
        y[:, :2].mul_(3)
        y += 1
        F.silu(y, inplace=True)
        y *= z
        return y

    assert run_pass(AsNetwork(network), x, DeepLiftRule(), b).residual(x, b) < 1e-10


def test_a_tensor_of_weights_that_is_overwritten_by_the_image_depends_on_it():
    x, b = (t.double() for t in _inputs())
    weight = nn.Parameter(torch.ones(3, 5, dtype=torch.float64))

    def network(x):
        y = weight * 2
        y.copy_(x)
        return F.relu(y)

    result = run_pass(AsNetwork(network), x, DeepLiftRule(), b)
    assert result.treated == {"relu": 1}
    assert result.residual(x, b) < 1e-10


def test_a_recording_is_replayed_as_often_as_needed():
    x, b = (t.double() for t in _inputs())
    network = Block().double()
    rule = DeepLiftRule()
    with torch.no_grad(), rule.record() as recording:
        network(b)
    maps = []
    for _ in range(2):
        leaf = x.clone().requires_grad_()
        with rule.replay(recording):
            output = network(leaf)
        maps.append(torch.autograd.grad(output.sum(), leaf)[0])
    assert torch.equal(*maps)


def test_in_place_results_may_be_changed_again():
    x, b = _inputs()

    def network(x):
        y = F.silu(x * 1)
        y += x
        y.mul_(2).relu_()
        return y[:, 1:] * 2

    for rule in RULES.values():
        result = run_pass(AsNetwork(network), x, rule, b)
        assert torch.equal(result.output, network(x))


def test_rules_are_equal_by_value_and_hash():
    assert Guided() == Guided()
    assert (
        len({Guided(), Guided(), Guided("relu_only"), DeepLiftRule(), DeepLiftRule(eps=1e-8)}) == 4
    )
    assert not Plain().paired
    assert DeepLiftRule().paired
    with pytest.raises(RuleError, match="record"):
        DeepLiftRule().mode()
    with pytest.raises(RuleError, match="mode"):
        Guided().record()
