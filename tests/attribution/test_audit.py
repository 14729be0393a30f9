"""An audit states which functions each rule treats."""

import json

import pytest
import torch
import torch.nn.functional as F
from rule_passes import AsNetwork
from torch import nn
from torch.utils.checkpoint import checkpoint

from voxplain.attribution.audit import audit
from voxplain.errors import ConfigError
from voxplain.models.model import Model


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(1, 4, 3, padding=1)
        self.norm = nn.InstanceNorm3d(4)
        self.act = nn.LeakyReLU()
        self.head = nn.Conv3d(4, 2, 1)

    def forward(self, x):
        y = self.act(self.norm(self.conv(x)))
        y = y * torch.sigmoid(y.mean((2, 3, 4), keepdim=True))
        return self.head(self.act(y)) * 0.5


def _image(rank=3):
    return torch.randn(2, 1, *[8] * rank, generator=torch.Generator().manual_seed(1))


def test_calls_are_listed_with_count_layer_family_and_treatment():
    report = audit(Network(), _image())
    assert report.nonlinear == {"instance_norm": 1, "leaky_relu": 2, "sigmoid": 1, "mul": 1}
    rows = {row["function"]: row for row in report.table()}
    assert rows["leaky_relu"]["layers"] == "act"
    assert rows["mul"]["layers"] == "(network)"
    assert (
        rows["leaky_relu"] | {"guided": "rule", "deep_lift": "rule", "plain": "plain"}
        == (rows["leaky_relu"])
    )
    assert rows["instance_norm"]["guided"] == "plain"
    assert rows["instance_norm"]["deep_lift"] == "rule"
    assert {"conv3d", "mean"} < {row["function"] for row in report.table(linear=True)}
    assert all(report.covered(rule) for rule in ("plain", "guided", "deconvnet", "deep_lift"))
    assert max(report.completeness.values()) < 1e-10
    assert report.guided_equals_plain is False


def test_relevance_is_conserved_and_treats_linear_functions_too():
    report = audit(Network(), _image(), ("lrp",))
    assert report.covered("lrp")
    assert report.conservation["lrp"] < 1e-4
    rows = {row["function"]: row for row in report.table(linear=True)}
    assert rows["conv3d"]["lrp"] == rows["instance_norm"]["lrp"] == rows["mul"]["lrp"] == "rule"
    report = audit(AsNetwork(lambda x: F.relu(x).exp()), _image(), ("lrp", "guided"))
    assert "exp" in report.failures["lrp"]
    assert [report.covered(rule) for rule in ("lrp", "guided")] == [False, True]


def test_the_mass_of_excitation_is_reported_and_refused_functions_too():
    report = audit(Network(), _image(), ("excitation",))
    assert report.covered("excitation")
    assert report.conservation["excitation"] < 1e-5
    assert report.remarks["excitation"][0].startswith("mass ")
    rows = {row["function"]: row for row in report.table(linear=True)}
    assert rows["conv3d"]["excitation"] == rows["mul"]["excitation"] == "rule"
    report = audit(nn.Conv3d(1, 2, 1), _image() * 0 - 1, ("excitation",))
    assert "mass 0 of 1 arrives" in report.remarks["excitation"][0]
    report = audit(AsNetwork(lambda x: F.relu(x).exp()), _image(), ("excitation", "guided"))
    assert "exp" in report.failures["excitation"]
    assert [report.covered(rule) for rule in ("excitation", "guided")] == [False, True]


def test_json_holds_everything():
    facts = json.loads(audit(Network(), _image()).to_json())
    assert facts["covered"] == {
        "plain": True, "guided": True, "deconvnet": True, "deep_lift": True, "excitation": True,
        "lrp": True,
    }  # fmt: skip
    assert facts["calls"][0]["function"] == "conv3d"
    assert set(facts["completeness"]) == {"zero", "blurred"}


def test_a_model_with_a_head_and_a_training_network_are_left_as_they_were():
    network = Network().train()
    network.conv.weight.requires_grad_(False)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    audit(Model(AsNetwork(lambda x: (network(x), 1)), head=0), _image(), ("guided",))
    audit(network, _image(), ("guided",))
    assert network.training
    assert [p.requires_grad for p in network.parameters()] == [False, True, True, True]
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not nn.modules.module._global_forward_hooks
    assert not nn.modules.module._global_forward_pre_hooks


def test_an_unknown_function_uncovers_deep_lift_and_guided_but_not_plain():
    report = audit(AsNetwork(lambda x: F.relu(x).cumprod(-1)), _image())
    assert "cumprod" in report.unknown[0]
    assert "cumprod" in report.failures["deep_lift"]
    assert [report.covered(rule) for rule in ("plain", "guided", "deep_lift")] == [1, 0, 0]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.where(x > 0, x, 0 * x),
        lambda x: x * (x > 0),
        lambda x: torch.maximum(x, torch.zeros(())),
    ],
)
def test_hand_written_rectifiers_are_found(function):
    report = audit(AsNetwork(function), _image())
    assert "hand-written" in report.unknown[0]
    assert report.guided_equals_plain
    assert not report.covered("guided")
    assert report.covered("deep_lift")


def test_multiplying_by_a_constant_mask_is_linear():
    mask = torch.ones(8, dtype=torch.bool)
    report = audit(AsNetwork(lambda x: F.relu(x * mask).masked_fill(~mask, 0)), _image())
    assert report.nonlinear == {"relu": 1}
    assert report.unknown == ()


class Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, q):
        return q


@torch.jit.script
def scripted(x):
    return torch.relu(x)


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (AsNetwork(lambda x: Custom.apply(F.relu(x))), "Custom"),
        (nn.Sequential(torch.jit.script(nn.Conv3d(1, 2, 1))), "TorchScript"),
        (nn.Sequential(nn.DataParallel(nn.Conv3d(1, 2, 1))), "DataParallel"),
        (nn.DataParallel(nn.Conv3d(1, 2, 1)), "DataParallel"),
        (AsNetwork(lambda x: scripted(x) * 2), "Relu made out of sight"),
    ],
)
def test_what_rules_cannot_see_is_listed(network, named):
    report = audit(network, _image())
    assert any(named in part for part in report.invisible)
    assert not any(report.covered(rule) for rule in ("guided", "deconvnet", "deep_lift"))


def test_checkpointed_segments_are_counted_and_covered():
    network = AsNetwork(lambda x: checkpoint(lambda y: F.relu(y).exp(), x, use_reentrant=False))
    report = audit(network, _image())
    assert report.checkpointed == 1
    assert report.covered("guided")
    assert report.covered("deep_lift")


def test_an_unknown_rule_is_named():
    with pytest.raises(ConfigError, match="deep_lift"):
        audit(Network(), _image(), ("deeplift",))
