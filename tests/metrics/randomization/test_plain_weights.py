"""Networks whose weights are computed are randomized where their forward takes them from."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from metric_cases import CLASS_ONE, metric_context
from networks import images, untouched
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from voxplain.attribution import explain
from voxplain.engine.randomization.plain_weights import with_plain_weights
from voxplain.engine.randomization.stages import Order
from voxplain.metrics.maps import Undefined
from voxplain.metrics.randomization import Cascade, stages
from voxplain.metrics.randomization.randomized_networks import randomized
from voxplain.models.model import Model


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def _parametrized(module: nn.Module) -> None:
    parametrize.register_parametrization(module, "weight", Doubled())
    parametrize.register_parametrization(module, "bias", Doubled())


def _own_hook(module: nn.Module) -> None:
    """A reparametrization that nobody knows: the weight is twice a parameter of another name."""
    raw = nn.Parameter(module.weight.detach() / 2)
    del module.weight
    module.register_parameter("raw", raw)

    def compute(other: nn.Module, _: object) -> None:
        other.weight = 2 * other.raw  # type: ignore[operator]

    module.register_forward_pre_hook(compute)
    compute(module, None)


WRAPS: dict[str, Callable[[nn.Module], object]] = {
    "weight_norm": weight_norm,
    "spectral_norm": spectral_norm,
    "pruned": lambda module: prune.l1_unstructured(module, "weight", 0.3),
    "pruned twice": lambda module: [
        prune.l1_unstructured(module, "weight", 0.2),
        prune.random_unstructured(module, "weight", 0.2),
    ],
    "parametrized weight_norm": parametrizations.weight_norm,
    "parametrized spectral_norm": parametrizations.spectral_norm,
    "parametrized": _parametrized,
}
every_wrap = pytest.mark.parametrize("wrap", WRAPS)


def _network(wrap: Callable[[nn.Module], object], rank: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    conv = nn.Conv2d if rank == 2 else nn.Conv3d
    pool = nn.AdaptiveAvgPool2d(1) if rank == 2 else nn.AdaptiveAvgPool3d(1)
    network = nn.Sequential(
        conv(1, 6, 3, padding=1), nn.ReLU(), conv(6, 6, 3), nn.ReLU(), pool, nn.Flatten()
    ).append(nn.Linear(6, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older functions are deprecated, and in use
        for index in (0, 2, 6):
            wrap(network[index])
    return network.eval()


@pytest.mark.parametrize("rank", [2, 3])
@every_wrap
def test_plain_weights_give_the_same_output_and_are_parameters(wrap: str, rank: int) -> None:
    model, image = Model(_network(WRAPS[wrap], rank)), images(rank, 1, 2)
    with torch.no_grad(), untouched(model.network):
        expected = model(image)
        plain = with_plain_weights(model)
        assert torch.equal(plain(image), expected)
        assert torch.equal(model(image), expected)  # classes are shared with the copy
    assert {name for name, _ in plain.network.named_parameters()} == {
        f"{index}.{name}" for index in (0, 2, 6) for name in ("weight", "bias")
    }
    assert with_plain_weights(plain) is plain


@pytest.mark.parametrize("order", ["top_down", "bottom_up", "independent"])
@every_wrap
def test_random_weights_are_those_of_the_network_without_the_computation(
    wrap: str, order: Order
) -> None:
    plain, image = Model(_network(lambda _: None)), images(2, 1, 1)
    model = with_plain_weights(Model(_network(WRAPS[wrap])))
    paths = stages(model, image)
    assert paths == stages(plain, image) == ("0", "2", "6")
    groups = [(path,) for path in paths]
    for network, other in zip(
        randomized(model, groups, order, 0, image),
        randomized(plain, groups, order, 0, image),
        strict=True,
    ):
        for path in network.changed:
            own, same = (
                each.model.network.get_submodule(path).state_dict() for each in (network, other)
            )
            assert own.keys() == same.keys()
            assert all(torch.equal(own[name], same[name]) for name in own)


@pytest.mark.parametrize("wrap", [*WRAPS.values(), _own_hook], ids=[*WRAPS, "own hook"])
def test_maps_change_in_a_cascade(wrap: Callable[[nn.Module], object]) -> None:
    network, image = _network(wrap), images(2, 1, 1)
    attributions = explain(network, image, ["saliency"], CLASS_ONE)
    maps = {name: attribution[0] for name, attribution in attributions.items()}
    context = metric_context(network, image[0], maps, CLASS_ONE)
    steps = Cascade("top_down", 12, 2).run(context)["saliency"]
    assert all(abs(curve[-1].spearman) < 0.9 for curve in steps.curves)
    assert abs(steps.chance[0].spearman) < 0.9


class Deaf(nn.Module):
    """Its output does not depend on the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)

    def forward(self, image: Tensor) -> Tensor:
        return 0 * self.conv(image).mean((2, 3)) + image.mean((2, 3))


@pytest.mark.parametrize("order", ["top_down", "independent"])
def test_an_output_that_does_not_change_is_no_test(order: Order) -> None:
    model, image = Model(Deaf().eval()), images(2, 1, 1)
    with pytest.raises(Undefined, match="stays the same when its weights are randomized"):
        list(randomized(model, [("conv",)], order, 0, image))
