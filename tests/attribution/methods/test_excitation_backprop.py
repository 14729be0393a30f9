"""Excitation backprop as a method: its published recipe by hand, targets, layers and windows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import assert_close, images, one_slice, segmenter, untouched
from torch import Tensor, nn

from voxplain.attribution import Attribution, explain
from voxplain.errors import ModelError, RuleError, TargetError
from voxplain.models.model import Model

SCORE = {"kind": "class_score", "label": 1}
PLAIN = "excitation_backprop"
CONTRAST = "contrastive_excitation_backprop"


def _net(rank: int, classes: int = 3) -> nn.Sequential:
    """The layers of the paper: convolution, ReLU, max-pooling, and a linear layer."""
    torch.manual_seed(rank)
    conv, pool = ((nn.Conv2d, nn.MaxPool2d), (nn.Conv3d, nn.MaxPool3d))[rank - 2]
    net = nn.Sequential(
        conv(2, 4, 3, padding=1), nn.ReLU(), pool(2), conv(4, 5, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(5 * 3**rank, 6), nn.ReLU(), nn.Linear(6, classes),
    )  # fmt: skip
    with torch.no_grad():  # so that each unit has positive inputs
        for layer in (net[0], net[3]):
            layer.weight += 0.02
    return net.double().eval()


def _shown(rank: int, batch: int = 2) -> Tensor:
    return images(rank, 2, batch).double()


def _by_hand(net: nn.Sequential, x: Tensor, label: int) -> tuple[list[Tensor], list[Tensor]]:
    """Probabilities at the input of every module, for the class and with the head negated."""
    values = [x]
    for module in net:
        values.append(module(values[-1]).detach())
    return tuple(_downwards(net, values, label, sign) for sign in (1, -1))


def _downwards(net: nn.Sequential, values: list[Tensor], label: int, sign: int) -> list[Tensor]:
    p = torch.zeros_like(values[-1])
    p[:, label] = 1
    actual = []
    for index in reversed(range(len(net))):
        p = _below(net[index], values[index], p, sign if index == len(net) - 1 else 1)
        actual.insert(0, p)
    return actual


def _below(module: nn.Module, x: Tensor, p: Tensor, sign: int) -> Tensor:
    if isinstance(module, nn.ReLU):
        return p
    leaf = x.clamp(min=0).requires_grad_()
    weight: Any = getattr(module, "weight", None)
    if weight is None:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(module(leaf), leaf, p)[0]
    part = {"weight": (sign * weight).clamp(min=0), "bias": torch.zeros_like(module.bias)}
    z = torch.func.functional_call(module, part, (leaf,))
    ratio = torch.where(z > 0, p / z, 0).detach()
    return leaf.detach() * torch.autograd.grad(z, leaf, ratio)[0]


def _explained(net: Any, x: Tensor, method: Any, target: Any = None) -> Attribution:
    (actual,) = explain(net, x, method, SCORE if target is None else target).values()
    return actual


@pytest.mark.parametrize("rank", [2, 3])
def test_the_published_recipe_by_hand(rank):
    net, x = _net(rank), _shown(rank)
    pro, contra = _by_hand(net, x, 1)
    with untouched(net):
        actual = _explained(net, x, PLAIN)
        contrast = _explained(net, x, CONTRAST)
    assert_close(actual.map, pro[0], 1e-10)
    assert_close(contrast.map, (pro[0] - contra[0]).sum(1, keepdim=True).clamp(min=0), 1e-10)
    assert actual[0].sidecar.sign == contrast[0].sidecar.sign == "positive"
    sums = actual.map.flatten(1).sum(1).tolist()
    books = actual.stats.streams[0]["conservation"]
    assert books["map"] == pytest.approx(sum(sums) / 2)
    assert books["map"] + books["unraised"] == pytest.approx(1)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("at", [8, 6, 3])
def test_subtracting_at_a_layer_and_going_on(rank, at):
    """The published way, at the input of the head and further down, gives the same map."""
    net, x = _net(rank), _shown(rank)
    pro, contra = _by_hand(net, x, 1)
    difference = pro[at] - contra[at]
    values = [x]
    for module in net:
        values.append(module(values[-1]).detach())
    for index in reversed(range(at)):
        difference = _below(net[index], values[index], difference, 1)
    expected = difference.sum(1, keepdim=True).clamp(min=0)
    assert_close(_explained(net, x, CONTRAST).map, expected, 1e-9)
    layered = {"name": CONTRAST, "contrast_layer": str(at - 1)}
    assert_close(_explained(net, x, layered).map, expected, 1e-9)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("name", [PLAIN, CONTRAST])
def test_a_layer_is_brought_to_the_image_with_its_sum(rank, name):
    net, x = _net(rank), _shown(rank)
    pro, contra = _by_hand(net, x, 1)
    cells = pro[3].sum(1)
    if name == CONTRAST:
        cells = (cells - contra[3].sum(1)).clamp(min=0)
    actual = _explained(net, x, {"name": name, "layer": "2"})
    assert actual.map.shape == (2, 1, *x.shape[2:])
    sums = actual.map.flatten(1).sum(1)
    assert_close(sums, cells.flatten(1).sum(1), 1e-9)
    assert_close(_explained(net, x, {"name": name, "layer": "3", "side": "input"}).map, actual.map)
    center = actual.map[:, 0].reshape(2, *[n for _ in range(rank) for n in (3, 2)])
    by_cell = center.sum(tuple(range(2, 2 * rank + 1, 2)))
    correlation = torch.corrcoef(torch.stack([by_cell.flatten(), cells.flatten()]))[0, 1]
    assert float(correlation) > 0.7, "mass stays around its cell"


def test_channels_are_those_of_the_image():
    net, x = _net(3), _shown(3)
    each = _explained(net, x, PLAIN).map
    assert each.shape[1] == 2
    assert_close(_explained(net, x, {"name": PLAIN, "channels": "sum"}).map, each.sum(1, True))


@pytest.mark.parametrize("rank", [2, 3])
def test_a_dense_target_starts_from_all_its_voxels(rank):
    """By hand, voxel by voxel: shares are linear in the probabilities of the output."""
    net, x = segmenter(rank, 2).double(), _shown(rank, 1)
    mask = torch.zeros(x.shape[2:], dtype=torch.bool)
    mask[1, 2:4] = True
    actual = _explained(net, x, PLAIN, {"kind": "region", "mask": mask.numpy(), "label": 1})
    alone = [
        _explained(net, x, PLAIN, {"kind": "region", "voxel": tuple(place), "label": 1}).map
        for place in mask.nonzero().tolist()
    ]
    assert_close(actual.map, torch.stack(alone).mean(0), 1e-10)
    assert float(actual.map.sum()) <= 1 + 1e-10


def test_a_probability_starts_like_its_score():
    net, x = _net(2), _shown(2)
    score = _explained(net, x, PLAIN).map
    for link in ("probability", "log_odds"):
        assert_close(_explained(net, x, PLAIN, {**SCORE, "link": link}).map, score, 1e-12)


def test_a_unit_of_a_layer_can_be_asked_about():
    net, x = _net(2), _shown(2)
    unit = {"kind": "unit", "layer": "3", "channel": 2, "position": [1, 1]}
    leaf = x.clamp(min=0)
    values = [x, *[net[:k](x).detach() for k in (1, 2, 3)]]
    p = torch.zeros_like(net[:4](x))
    p[:, 2, 1, 1] = 1
    for index in (3, 2, 1, 0):
        p = _below(net[index], values[index], p, 1)
    assert_close(_explained(net, x, PLAIN, unit).map, p, 1e-10)
    assert bool((p[leaf == 0] == 0).all())


def test_class_0_of_one_logit_is_the_evidence_against_class_1():
    net, x = _net(2, classes=1), _shown(2)
    pro, contra = _by_hand(net, x, 0)
    zero = {"kind": "class_score", "label": 0}
    assert_close(_explained(net, x, PLAIN, zero).map, contra[0], 1e-10)
    difference = (contra[0] - pro[0]).sum(1, keepdim=True).clamp(min=0)
    assert_close(_explained(net, x, CONTRAST, zero).map, difference, 1e-10)


def test_images_on_both_sides_of_one_logit_are_asked_about_their_own():
    net, x = _net(2, classes=1), _shown(2, 4)
    with torch.no_grad():
        net[-1].bias -= net(x).median()
    each = {"kind": "class_score", "label": "predicted"}
    actual = _explained(net, x, PLAIN, each)
    pro, contra = _by_hand(net, x, 0)
    positive = (net(x) > 0).reshape(-1, 1, 1, 1)
    assert 0 < int(positive.sum()) < 4
    assert_close(actual.map, torch.where(positive, pro[0], contra[0]), 1e-10)
    books = actual.stats.streams[0]["conservation"]
    assert books["map"] + books["unraised"] == pytest.approx(1)
    assert not [text for text in actual.stats.warnings if "are negative" not in text]


def test_two_classes_contrast_with_negated_weights_not_with_each_other():
    net, x = _net(2, classes=2), _shown(2)
    pro, contra = _by_hand(net, x, 1)
    expected = (pro[0] - contra[0]).sum(1, keepdim=True).clamp(min=0)
    assert_close(_explained(net, x, CONTRAST).map, expected, 1e-10)


@pytest.mark.parametrize("name", [PLAIN, CONTRAST])
def test_contrasts_are_refused_naming_the_contrastive_form(name):
    target = {"kind": "contrast", "a": SCORE, "b": {"kind": "class_score", "label": 2}}
    with pytest.raises(TargetError, match=rf"one sign.*{CONTRAST}"):
        _explained(_net(2), _shown(2), name, target)


class _Skipping(nn.Module):
    """A main path and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.main = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.head(self.main(x).relu() + x)


def test_what_bypasses_the_contrast_layer_is_left_out():
    net, x = _Skipping().double().eval(), _shown(2)
    whole = _explained(net, x, CONTRAST).map
    part = _explained(net, x, {"name": CONTRAST, "contrast_layer": "main"}).map
    all_of_it = _explained(net, x, {"name": CONTRAST, "contrast_layer": "first"}).map
    assert_close(all_of_it, whole, 1e-10)
    assert not torch.allclose(part, whole)
    assert float(part.abs().max()) > 0


def test_a_batch_is_its_images_one_by_one():
    net, x = _net(3), _shown(3, 3)
    together = explain(net, x, [PLAIN, CONTRAST], SCORE)
    for index in range(3):
        alone = explain(net, x[index : index + 1], [PLAIN, CONTRAST], SCORE)
        for name in (PLAIN, CONTRAST):
            assert_close(together[name].map[index], alone[name].map[0], 1e-12)


def test_one_slice_in_three_d_is_the_two_d_map():
    flat = segmenter(2, 2).double()
    x, target = _shown(2), {"kind": "pixelwise", "label": 1}
    for name in (PLAIN, CONTRAST):
        two = _explained(flat, x, name, target).map
        three = _explained(one_slice(flat), x[:, :, None], name, target).map
        assert_close(three[:, :, 0], two, 1e-12)


def _windowed(net: nn.Module, overlap: float = 0.5) -> Model:
    return Model(net, window={"size": 8, "overlap": overlap, "blend": "gaussian"})


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("target", [{"kind": "pixelwise", "label": 0}, {**SCORE}])
def test_windows_of_a_network_without_neighborhoods_give_the_whole_map(rank, target):
    torch.manual_seed(0)
    conv = (nn.Conv2d, nn.Conv3d)[rank - 2]
    net = nn.Sequential(conv(2, 6, 1), nn.ReLU(), conv(6, 6, 1), nn.SiLU(), conv(6, 3, 1))
    net, x = net.double().eval(), images(rank, 2, 2, size=12).double()
    for name in (PLAIN, CONTRAST):
        whole = _explained(net, x, name, target)
        parts = _explained(_windowed(net), x, name, target)
        assert_close(parts.map, whole.map, 1e-9)
    at_layer = _explained(_windowed(net), x, {"name": PLAIN, "layer": "1"}, target).map
    assert_close(at_layer, _explained(net, x, {"name": PLAIN, "layer": "1"}, target).map, 1e-9)


def test_the_mass_of_all_windows_together_is_1():
    net, x = segmenter(3, 2).double(), images(3, 2, 1, size=12).double()
    actual = _explained(_windowed(net), x, PLAIN, {"kind": "pixelwise", "label": 1})
    books = actual.stats.streams[0]["conservation"]
    assert float(actual.map.sum()) + books["unraised"] + books["padding"] == pytest.approx(1)
    assert float(actual.map.sum()) > 0.9


def test_a_function_without_a_rule_is_named_with_its_line():
    net = nn.Sequential(nn.Conv2d(2, 4, 1), _Squared(), nn.Flatten(), nn.Linear(4 * 36, 3)).double()
    with pytest.raises(RuleError, match=r"no rule for square.*_Squared \(.*line \d+\).*on_unknown"):
        _explained(net, _shown(2), PLAIN)
    actual = _explained(net, _shown(2), {"name": PLAIN, "on_unknown": "warn"})
    assert "no rule for square" in actual.stats.warnings[0]


class _Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.square()


def test_most_of_the_evidence_lost_is_said():
    net = nn.Sequential(nn.Flatten(), nn.Linear(2 * 36, 3)).double()
    with torch.no_grad():
        net[1].weight[1] = -net[1].weight[1].abs()
        net[1].weight[1, 0] = 1
    x = _shown(2, 1)
    x[0, 0, 0, 0] = -1
    actual = _explained(net, x, PLAIN)
    assert float(actual.map.abs().max()) == 0
    assert any(
        "100% of the evidence ended at constants, or at units" in text
        for text in actual.stats.warnings
    )
    with torch.no_grad():
        net[1].weight[1] *= -1
    actual = _explained(net, x, CONTRAST)
    assert float(actual.map.abs().max()) > 0
    assert any("evidence against it ended" in text for text in actual.stats.warnings)
    assert actual.stats.streams[1]["conservation"]["unraised_against"] == pytest.approx(1)


def test_a_layer_without_places_is_refused_in_words():
    with pytest.raises(ModelError, match="no places in the image left"):
        _explained(_net(2), _shown(2), {"name": PLAIN, "layer": "6"})


def test_half_precision_keeps_its_books():
    net, x = segmenter(2, 2).bfloat16(), images(2, 2, 2)
    actual = _explained(net, x, PLAIN, {"kind": "pixelwise", "label": 1})
    assert float(actual.map.flatten(1).sum(1).min()) > 0.9
