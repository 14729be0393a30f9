"""New weights come from each module's own initializer, and activations stay finite."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from networks import classifier, images, untouched
from torch import Tensor, nn

from voxplain.engine.randomization import recalibrate, reinitialize, stages
from voxplain.models.copies import copied
from voxplain.models.model import Model


def _trained(network: nn.Module) -> nn.Module:
    """Weights far from anything an initializer draws."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(100)
    for parameter in network.modules():
        if isinstance(parameter, nn.modules.batchnorm._BatchNorm):
            parameter.running_mean.add_(7)  # type: ignore[operator]
            parameter.running_var.mul_(50)  # type: ignore[operator]
    return network.eval()


class Varied(nn.Module):
    """Modules with an initializer, with a private one, and parameters without any."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.PReLU(4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.table = nn.Embedding(5, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.gamma = nn.Parameter(torch.ones(4))
        self.bias = nn.Parameter(torch.zeros(4))


def test_every_parameter_is_drawn_again() -> None:
    network = _trained(Varied())
    paths = [
        path for path, parameter in network.named_modules() if list(parameter.parameters(False))
    ]
    reinitialize(network, paths, seed=0)
    for name, parameter in network.named_parameters():
        assert float(parameter.abs().max()) < 10, name
    assert network.norm.weight.tolist() == [1] * 4
    assert network.act.weight.tolist() == [0.25] * 4  # ones would make it linear
    assert float(network.relative_position_bias_table.std()) > 0
    assert network.gamma.tolist() == [1] * 4
    assert network.bias.tolist() == [0] * 4
    assert network.norm.running_mean.tolist() == [0] * 4
    bound = 1 / math.sqrt(9)
    assert bound / 2 < float(network.conv.weight.detach().abs().max()) <= bound
    assert float(network.conv.bias.detach().abs().max()) > 0  # biases are drawn, too


def test_weights_depend_on_the_seed_and_the_module_alone() -> None:
    first, second, third = (_trained(classifier()) for _ in range(3))
    with untouched(nn.Identity()):  # the global generator stays where it was
        reinitialize(first, ["conv1", "conv2", "head"], seed=0)
        reinitialize(second, ["conv2"], seed=0)
        reinitialize(third, ["conv2"], seed=1)
    assert torch.equal(first.conv2.weight, second.conv2.weight)
    assert not torch.equal(first.conv2.weight, third.conv2.weight)
    assert float(second.conv1.weight.detach().min()) > 50  # untouched


class Resets(nn.Module):
    """An initializer that draws its children as well."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(4))

    def reset_parameters(self) -> None:
        self.inner.reset_parameters()
        nn.init.normal_(self.scale)


def test_only_the_parameters_of_the_module_itself_are_drawn() -> None:
    network = _trained(Resets())
    reinitialize(network, [""], seed=0)
    assert float(network.scale.detach().max()) < 10
    assert float(network.inner.weight.detach().min()) > 50


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4, affine=False)

    def forward(self, image: Tensor) -> Tensor:
        features = self.norm1(self.conv1(image)).relu()
        return self.norm2(self.conv2(features)).mean((2, 3))


def test_norms_before_the_randomized_layer_keep_their_statistics() -> None:
    model = Model(_trained(Normed()))
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    reinitialize(model.network, ["conv2"], seed=0)
    recalibrate(model, images(), ["conv2"])
    after = model.network.state_dict()
    assert torch.equal(after["norm1.running_mean"], before["norm1.running_mean"])
    assert torch.equal(after["norm1.running_var"], before["norm1.running_var"])
    assert not torch.equal(after["norm2.running_mean"], before["norm2.running_mean"])
    assert model.network.norm2.momentum == 0.1
    assert not model.network.norm2.training


def test_recalibrated_norms_give_standard_activations() -> None:
    model = Model(_trained(Normed()))
    batch = images(2, 1, 5)
    reinitialize(model.network, ["conv1", "norm1", "conv2"], seed=0)
    recalibrate(model, batch, ["conv1", "norm1", "conv2"])
    seen: list[Tensor] = []
    handle = model.network.norm2.register_forward_hook(lambda *call: seen.append(call[2]))
    model.output(batch)
    handle.remove()
    channels = seen[-1].transpose(0, 1).flatten(1)
    assert channels.mean(1).tolist() == pytest.approx([0] * 4, abs=0.05)
    assert channels.std(1).tolist() == pytest.approx([1] * 4, rel=0.25)


@pytest.mark.parametrize("order", ["top_down", "bottom_up"])
@pytest.mark.parametrize("name", ["ResNet10", "DenseNet121", "UNet"])
def test_real_networks_stay_finite(name: str, order: str) -> None:
    network, example = _real(name)
    model = Model(network)
    with untouched(network):
        paths = stages(model, example)
        ordered = paths[::-1] if order == "top_down" else paths
        random, whole = copied(model), float(model.output(example).abs().max())
        for randomized_paths in (ordered[: len(paths) // 2], ordered):
            reinitialize(random.network, randomized_paths, seed=0)
            recalibrate(random, example, randomized_paths)
            output = random.output(example)
            assert torch.isfinite(output).all()
            assert float(output.abs().max()) < 100 * max(1.0, whole)
        assert not torch.equal(output, model.output(example))


@pytest.mark.parametrize("count", [1, 3])
def test_features_of_one_place_are_not_blown_up(count: int) -> None:
    """Where an image is one voxel to the last layers, no spread can be estimated from it."""
    import matrix

    network = matrix.network("DenseNet121", 2)
    example = torch.randn(count, 1, 32, 32)
    random, paths = copied(Model(network)), stages(Model(network), example[:1])
    reinitialize(random.network, paths, seed=0)
    recalibrate(random, example, paths)
    assert float(random.output(example).abs().max()) < 100
    assert all(
        float(module.running_var.min()) > 0
        for module in random.network.modules()
        if isinstance(module, nn.BatchNorm2d)
    )


def _real(name: str) -> tuple[nn.Module, Tensor]:
    import matrix

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name != "UNet":
            return matrix.network(name, 2), matrix.image(name, 2)
        nets = pytest.importorskip("monai.networks.nets")
        torch.manual_seed(0)
        net = nets.UNet(2, 1, 2, channels=(4, 8), strides=(2,), num_res_units=1, norm="batch")
    return net.eval(), images(2, 1, 1, 16)
