"""Every layer rule against dense algebra on the Jacobian, for every kind of linear call."""

import dense
import pytest
import torch
from dense import Dense
from torch import nn

from voxplain.engine.rules import Lrp
from voxplain.engine.rules.lrp.composites import Choice
from voxplain.errors import ConfigError


class Scaled(nn.Module):
    """A product with a parameter, which is a weighted layer with a matrix of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3))
        self.bias = nn.Parameter(torch.randn(3))

    def forward(self, x):
        return x @ self.weight


class Contracted(Scaled):
    def forward(self, x):
        return torch.einsum("bni,io->bno", x, self.weight)


LAYERS = {
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, padding=1), (2, 7)),
    "conv2d": (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 4, 5)),
    "conv3d": (lambda: nn.Conv3d(1, 2, 3, padding=1), (1, 3, 4, 3)),
    "strided": (lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1), (2, 5, 6)),
    "dilated": (lambda: nn.Conv2d(2, 2, 3, dilation=2, padding=2), (2, 5, 5)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), (4, 3, 4)),
    "no bias": (lambda: nn.Conv2d(2, 3, 3, bias=False), (2, 4, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, output_padding=1), (2, 3, 3)),
    "transposed3d": (lambda: nn.ConvTranspose3d(2, 2, 2, stride=2, groups=2), (2, 2, 2, 2)),
    "linear": (lambda: nn.Linear(6, 4), (6,)),
    "tokens": (lambda: nn.Linear(5, 3), (4, 5)),
    "matmul": (Scaled, (4, 5)),
    "einsum": (Contracted, (4, 5)),
}
RULES = {
    "epsilon": (Choice("epsilon"), dense.epsilon),
    "gamma": (Choice("gamma", gamma=0.25), dense.gamma),
    "gamma 1": (Choice("gamma", gamma=1.0), lambda d, r: dense.gamma(d, r, 1.0)),
    "alpha2 beta1": (
        Choice("alpha_beta", alpha=2.0, beta=1.0),
        lambda d, r: dense.alpha_beta(d, r, 2.0, 1.0),
    ),
    "z-plus": (
        Choice("alpha_beta", alpha=1.0, beta=0.0),
        lambda d, r: dense.alpha_beta(d, r, 1.0, 0.0),
    ),
    "flat": (Choice("flat", first=True), dense.flat),
}


def layer_of(name):
    build, shape = LAYERS[name]
    torch.manual_seed(3)
    return build().double().eval(), torch.randn(1, *shape, dtype=torch.float64)


def propagate(layer, x, rule, seed):
    """Relevance at x for a seed at the output, the conservation sums, and the mode."""
    leaf = x.clone().requires_grad_()
    with rule.mode() as mode:
        mode.prepare(leaf)
        output = layer(leaf)
    (relevance,) = torch.autograd.grad(output, leaf, seed.reshape(output.shape))
    return relevance, mode.conservation, mode


def random_relevance(layer, x):
    source = torch.Generator().manual_seed(5)
    shape = layer(x).shape
    return torch.randn(shape, generator=source, dtype=torch.float64)


@pytest.mark.parametrize("sign", ["any", "positive"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", LAYERS)
def test_rules_equal_dense_algebra(name, rule, sign):
    layer, x = layer_of(name)
    if sign == "positive":  # after a rectifier: half of the contributions are left out
        x = x.clamp(min=0)
    choice, reference = RULES[rule]
    seed = random_relevance(layer, x)
    relevance, conservation, _ = propagate(layer, x, Lrp(composite=(choice,)), seed)
    expected = reference(dense.dense(layer, x), seed.flatten())
    assert float(expected.abs().max()) > 1e-3
    assert float((relevance.flatten() - expected).abs().max() / expected.abs().max()) <= 1e-9
    total = float(relevance.sum()) + conservation.bias + conservation.epsilon
    assert abs(total - float(seed.sum())) <= 1e-9 * float(seed.abs().sum())


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in ("tokens", "matmul")])
def test_the_box_rule_equals_dense_algebra(name):
    layer, x = layer_of(name)
    seed = random_relevance(layer, x)
    relevance, conservation, _ = propagate(layer, x, Lrp(), seed)
    spatial = x.flatten(2) if x.dim() > 2 else x[:, None]
    low, high = (end.reshape(1, -1, *[1] * (x.dim() - 2)) for end in (
        spatial.amin(2), spatial.amax(2)
    ))  # fmt: skip
    ends = (low.expand_as(x), high.expand_as(x))
    expected = dense.box(dense.dense(layer, x), seed.flatten(), *ends)
    assert float((relevance.flatten() - expected).abs().max() / expected.abs().max()) <= 1e-9
    assert conservation.bias == 0
    total = float(relevance.sum()) + conservation.epsilon
    assert abs(total - float(seed.sum())) <= 1e-9 * float(seed.abs().sum())


def test_the_box_rule_takes_a_given_range():
    layer, x = layer_of("conv2d")
    seed = random_relevance(layer, x)
    rule = Lrp(low=(-4.0, -5.0), high=(6.0, 7.0))
    relevance, _, _ = propagate(layer, x, rule, seed)
    low, high = (torch.tensor(end, dtype=torch.float64).view(1, 2, 1, 1).expand_as(x) for end in
                 (rule.low, rule.high))  # fmt: skip
    expected = dense.box(dense.dense(layer, x), seed.flatten(), low, high)
    assert float((relevance.flatten() - expected).abs().max() / expected.abs().max()) <= 1e-9
    assert float((relevance - propagate(layer, x, Lrp(), seed)[0]).abs().max()) > 1e-3


@pytest.mark.parametrize("arrangement", ["pad", "tokens", "cut"])
def test_the_box_rule_follows_rearrangements_of_the_image(arrangement):
    """Padding does not extend the range, and tokens keep the range of their channel."""
    torch.manual_seed(0)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64) * torch.tensor([1.0, 9.0]).view(1, 2, 1, 1)
    conv = nn.Conv2d(2, 3, 3, bias=False).double()
    head = nn.Linear(32, 3, bias=False).double()
    arrangements = {
        "pad": lambda image: conv(nn.functional.pad(image, (1, 1, 1, 1))),
        "tokens": lambda image: head(image.permute(0, 2, 3, 1).reshape(1, -1)),
        "cut": lambda image: torch.cat([conv(image[..., :3]), conv(image[..., 1:])], -1),
    }
    layer = arrangements[arrangement]
    seed = random_relevance(layer, x)
    relevance, _, _ = propagate(layer, x, Lrp(), seed)
    low, high = (end.view(1, 2, 1, 1).expand_as(x) for end in (
        x.flatten(2).amin(2), x.flatten(2).amax(2)
    ))  # fmt: skip
    expected = dense.box(dense.dense(layer, x), seed.flatten(), low, high)
    assert float((relevance.flatten() - expected).abs().max() / expected.abs().max()) <= 1e-6


def test_lrp_zero_of_a_layer_without_bias_conserves_exactly():
    layer, x = layer_of("no bias")
    seed = random_relevance(layer, x)
    relevance, conservation, _ = propagate(layer, x, Lrp(composite="epsilon", epsilon=0.0), seed)
    assert conservation.bias == 0
    assert abs(conservation.epsilon) <= 1e-12
    assert abs(float(relevance.sum() - seed.sum())) <= 1e-9


def test_gamma_zero_is_epsilon():
    layer, x = layer_of("conv2d")
    seed = random_relevance(layer, x)
    pair = [
        propagate(layer, x, Lrp(composite=(choice,)), seed)[0]
        for choice in (Choice("gamma", gamma=0.0), Choice("epsilon"))
    ]
    assert float((pair[0] - pair[1]).abs().max()) <= 1e-12


def test_the_stabilizer_absorbs_the_relevance_of_a_unit_without_contributions():
    layer = nn.Linear(3, 2, bias=False).double()
    x, seed = (
        torch.zeros(1, 3, dtype=torch.float64),
        torch.ones(1, 2, dtype=torch.float64),
    )
    for composite in ("epsilon", "epsilon_plus", "alpha2_beta1"):
        relevance, conservation, _ = propagate(layer, x, Lrp(composite=composite), seed)
        assert torch.equal(relevance, torch.zeros_like(relevance))
        assert conservation.epsilon == pytest.approx(2.0)


def test_composites_choose_by_depth_kind_kernel_and_function():
    """Four layers; each choice changes the rule of the layers that it fits."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.ReLU(),
        nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2),
    ).double()  # fmt: skip
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64)
    depths = {0: 0.0, 2: 1 / 3, 4: 2 / 3, 7: 1.0}

    def map_of(*choices):
        return propagate(net, x, Lrp(composite=choices), random_relevance(net, x))[0]

    def by_hand(gamma_layers):
        relevance = random_relevance(net, x).flatten()
        for index in reversed(range(len(net))):
            if index not in depths:
                continue
            before = net[:index](x).detach()
            matrix = dense.dense(net[index], before)
            rule = dense.gamma if index in gamma_layers else dense.epsilon
            relevance = rule(matrix, relevance)
        return relevance.reshape(x.shape)

    for choice, gamma_layers in (
        (Choice("gamma"), {0, 2, 4, 7}),
        (Choice("gamma", depth=(0.0, 0.5)), {0, 2}),
        (Choice("gamma", depth=(0.6, 1.0)), {4, 7}),
        (Choice("gamma", "convolution"), {0, 2, 4}),
        (Choice("gamma", "dense"), {7}),
        (Choice("gamma", function="linear"), {7}),
        (Choice("gamma", first=True), {0}),
        (Choice("gamma", kernel="wide"), {0, 4}),
        (Choice("gamma", kernel="point"), {2}),
    ):
        expected = by_hand(gamma_layers)
        assert float((map_of(choice) - expected).abs().max() / expected.abs().max()) <= 1e-9
    assert torch.equal(map_of(Choice("gamma", "dense"), Choice("epsilon")),
                       map_of(Choice("gamma", "dense")))  # fmt: skip
    assert torch.equal(map_of(Choice("epsilon"), Choice("gamma")), map_of())


def test_the_dense_matrix_gives_the_output_of_the_layer():
    layer, x = layer_of("strided")
    matrix = dense.dense(layer, x)
    assert isinstance(matrix, Dense)
    assert torch.allclose(matrix.sums, layer(x).flatten())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Choice("gama"), "gamma"),
        (lambda: Choice("box"), "first"),
        (lambda: Choice("pass", "convolution"), "norms take"),
        (lambda: Choice("gamma", "norm"), "norms take"),
        (lambda: Choice("alpha_beta", alpha=2.0, beta=2.0), "alpha - beta"),
        (lambda: Choice("alpha_beta", alpha=0.5, beta=-0.5), "beta at least 0"),
        (lambda: Lrp(composite="epsilon_gama").mode(), "epsilon_gamma_box"),
        (lambda: Lrp(low=(0.0,)).mode(), "together"),
        (lambda: Lrp(low=(2.0,), high=(1.0,)).mode(), "exceed"),
    ],
)
def test_wrong_parameters_are_named(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_one_range_per_channel_or_one_for_all():
    layer, x = layer_of("conv2d")
    with pytest.raises(ConfigError, match="3 values for an image of 2 channels"):
        propagate(layer, x, Lrp(low=(0.0,) * 3, high=(1.0,) * 3), random_relevance(layer, x))
