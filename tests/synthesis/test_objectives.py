"""Objectives and penalties in closed form, at the places of layers, and refused in words."""

from __future__ import annotations

import pytest
import torch
from synthesis_cases import network, surface
from torch import Tensor, nn

from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError, ModelError, TargetError
from voxplain.grid import Grid
from voxplain.models.model import Model
from voxplain.synthesis import Regularization, parse_objective
from voxplain.synthesis.objectives.base import Objective
from voxplain.synthesis.objectives.layers import (
    ChannelActivation,
    DirectionActivation,
    LayerDiversity,
    LayerEnergy,
    MatchedActivation,
    NeuronActivation,
    StartLikeness,
)
from voxplain.synthesis.objectives.outputs import ClassLogit, WeightedSum
from voxplain.synthesis.reading import Reader, Reading
from voxplain.synthesis.regularization import total_variation


def read(net: nn.Module, images: Tensor, *objectives: Objective) -> Reading:
    model = Model(net)
    taps = tuple(tap for each in objectives for tap in each.taps)
    with torch.no_grad(), model.at_rest():
        return Reader(model, images[:1], taps)(images)


@pytest.mark.parametrize("rank", [2, 3])
def test_values_of_units_are_those_written_out(rank: int) -> None:
    net, images = network(rank), torch.randn(2, 2, *(7, 6, 5)[:rank])
    cells = net.first(images).detach()
    vector = torch.randn(6)
    channel, energy = ChannelActivation(layer="first", channel=3), LayerEnergy(layer="first")
    neuron = NeuronActivation(layer="first", channel=3, position=(2, 4, 1)[:rank])
    plain = DirectionActivation(layer="first", direction=vector, power=0)
    pure = DirectionActivation(layer="first", direction=vector, power=2)
    reading = read(net, images, channel)
    assert torch.allclose(channel.value(reading), cells[:, 3].flatten(1).mean(dim=1))
    assert torch.allclose(channel.peak(reading), cells[:, 3].flatten(1).amax(dim=1))
    assert torch.allclose(energy.value(reading), cells.square().flatten(1).mean(dim=1))
    assert torch.allclose(neuron.value(reading), cells[(slice(None), 3, *(2, 4, 1)[:rank])])
    dot = torch.einsum("k,bk...->b...", vector, cells)
    assert torch.allclose(plain.value(reading), dot.flatten(1).mean(dim=1), atol=1e-5)
    cosine = dot / cells.norm(dim=1) / vector.norm()
    expected = (dot * cosine.clamp_min(0.1) ** 2).flatten(1).mean(dim=1)
    assert torch.allclose(pure.value(reading), expected, atol=1e-5)


def test_a_neuron_is_the_cell_at_the_place_of_the_voxel() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 3, stride=4, padding=1, bias=False))
    with torch.no_grad():
        net[0].weight.zero_()[0, 0, 1, 1] = 1.0
    images = torch.zeros(1, 1, 17, 13)
    images[0, 0, 8, 4] = 5.0  # cell (2, 1) lies there
    places = (((8, 4), 5.0), ((9, 5), 5.0), ((6, 4), 5.0), ((8, 6), 0.0), ((11, 4), 0.0))
    for position, expected in places:
        unit = NeuronActivation(layer="0", channel=0, position=position)
        assert float(unit.value(read(net, images, unit))) == expected


@pytest.mark.parametrize("rank", [2, 3])
def test_a_class_counts_against_the_mean_of_the_others_over_a_region(rank: int) -> None:
    net, images = network(rank), torch.randn(2, 2, *(7, 6, 5)[:rank])
    output = net(images).detach()
    difference = output[:, 1] - output[:, [0, 2]].mean(dim=1)
    region = torch.zeros(images.shape[2:])
    region[2:4, 1:5] = 1
    reading = read(net, images)
    assert torch.allclose(
        ClassLogit(label=1).value(reading), difference.flatten(1).mean(dim=1), atol=1e-6
    )
    within = ClassLogit(label=1, region=region).value(reading)
    assert torch.allclose(within, difference[:, region > 0].mean(dim=1), atol=1e-6)
    center = ClassLogit(label=1, center=0.9).value(reading)
    around = torch.zeros(images.shape[2:])
    around[(3, slice(2, 4), 2)[:rank]] = 1  # the middle of an even axis lies between two voxels
    assert torch.allclose(center, difference[:, around > 0].mean(dim=1), atol=1e-6)


class Probable(nn.Module):
    """A classifier that ends in a softmax."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(16, 3)

    def forward(self, image: Tensor) -> Tensor:
        return self.linear(image.flatten(1)).softmax(dim=1)


def test_a_softmax_inside_is_undone() -> None:
    net, images = Probable(), torch.randn(2, 1, 4, 4)
    logits = net.linear(images.flatten(1)).detach()
    expected = logits[:, 2] - logits[:, :2].mean(dim=1)
    assert torch.allclose(ClassLogit(label=2).value(read(net, images)), expected, atol=1e-5)


def test_one_output_is_its_class_or_its_negative() -> None:
    net, images = nn.Conv2d(1, 1, 1), torch.randn(1, 1, 4, 4)
    value = net(images).mean().detach()
    assert torch.allclose(ClassLogit(label=1).value(read(net, images)), value)
    assert torch.allclose(ClassLogit(label=0).value(read(net, images)), -value)


def test_match_likeness_and_diversity_in_closed_form() -> None:
    net, images = network(2), torch.randn(3, 2, 7, 6)
    cells = net.first(images).detach()
    match = MatchedActivation(layer="first", reference=cells[0])
    reading = read(net, images, match)
    distance = (cells - cells[0]).square().flatten(1).sum(dim=1) / cells[0].square().sum()
    assert torch.allclose(match.value(reading), -distance, atol=1e-6)
    start = Reading(reading.layers, {Tap("first"): cells[:1].expand_as(cells)}, reading.output)
    beside = Reading(reading.layers, reading.values, reading.output, start)
    likeness = StartLikeness(layer="first").value(beside)
    assert torch.allclose(likeness, -distance.sqrt(), atol=1e-5)
    flat = cells.flatten(2)
    grams = nn.functional.normalize((flat @ flat.transpose(1, 2)).flatten(1), dim=1)
    expected = -(grams[0] @ grams[1] + grams[0] @ grams[2]) / 2
    assert torch.allclose(LayerDiversity(layer="first").value(reading)[0], expected, atol=1e-5)
    both = WeightedSum(terms=(match, LayerEnergy(layer="first")), weights=(2.0, -1.0))
    energies = cells.square().flatten(1).mean(dim=1)
    assert torch.allclose(both.value(reading), -2 * distance - energies, atol=1e-5)


def test_flat_layers_have_channels_and_neurons() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 2))
    images = torch.randn(2, 1, 4, 4)
    expected = net[1](images.flatten(1))[:, 3].detach()
    for asked in ("1:3", "1:3@center"):
        unit = parse_objective(asked)
        assert torch.allclose(unit.value(read(net, images, unit)), expected)


def test_what_people_write_is_parsed() -> None:
    assert parse_objective(2) == ClassLogit(label=2)
    assert parse_objective("enc.a:7") == ChannelActivation(layer="enc.a", channel=7)
    assert parse_objective("enc:7@center") == NeuronActivation(layer="enc", channel=7)
    assert parse_objective("enc") == LayerEnergy(layer="enc")
    both = parse_objective(
        {"kind": "sum", "terms": [{"kind": "channel", "layer": "a", "channel": 1}]}
    )
    assert both.slug == "a:1"
    for wrong in ("enc:x", "enc:1@side"):
        with pytest.raises(ConfigError, match="write layer:channel"):
            parse_objective(wrong)
    with pytest.raises(ConfigError, match=r"unit \{'kind': 'channel'"):
        parse_objective({"kind": "channel", "layer": "a", "chanel": 1})
    with pytest.raises(ConfigError, match="2 weights for a sum of 1 terms"):
        WeightedSum(terms=(ClassLogit(label=0),), weights=(1.0, 2.0))


def test_units_that_do_not_exist_are_refused_in_words() -> None:
    net, images = network(2), torch.randn(1, 2, 7, 6)
    unit = ChannelActivation(layer="first", channel=6)
    with pytest.raises(ModelError, match="'first' has 6 channels, numbered from 0"):
        unit.value(read(net, images, unit))
    with pytest.raises(TargetError, match="3 classes, numbered from 0; there is no class 3"):
        ClassLogit(label=3).value(read(net, images))
    with pytest.raises(TargetError, match="the region of the class is empty"):
        ClassLogit(label=1, region=torch.zeros(7, 6)).value(read(net, images))
    with pytest.raises(TargetError, match=r"region of shape \(3, 3\)"):
        ClassLogit(label=1, region=torch.ones(3, 3)).value(read(net, images))
    with pytest.raises(ModelError, match="no layer 'fist'"):
        read(net, images, LayerEnergy(layer="fist"))


@pytest.mark.parametrize("beta", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("rank", [2, 3])
def test_total_variation_of_a_ramp_is_its_slope_per_mm(rank: int, beta: float) -> None:
    shape, spacing, slopes = (6, 5, 4)[:rank], (0.5, 2.0, 3.0)[:rank], (1.0, -3.0, 2.0)[:rank]
    ramp = torch.zeros(1, 1, *shape, dtype=torch.float64)
    for axis, (size, slope) in enumerate(zip(shape, slopes, strict=True)):
        line = slope * torch.arange(size, dtype=torch.float64)
        ramp += line.view(-1, *(1,) * (rank - 1 - axis))
    expected = 0.0
    for index in torch.cartesian_prod(*(torch.arange(size) for size in shape)).tolist():
        squares = [
            (slope / step) ** 2
            for at, size, slope, step in zip(index, shape, slopes, spacing, strict=True)
            if at < size - 1
        ]
        expected += sum(squares) ** (beta / 2)
    assert float(total_variation(ramp, spacing, beta)) == pytest.approx(
        expected / ramp.numel(), rel=1e-5
    )


def test_penalties_are_means_in_intensity_ranges() -> None:
    place = surface(2)
    images = place.noise(["a", "b"])
    spans = place.per_channel(place.statistics.range)
    mean = place.per_channel(place.statistics.mean)
    found = Regularization(l2=2.0)(images, place)
    assert torch.allclose(found, 2 * (images / spans).square().flatten(1).mean(dim=1))
    found = Regularization(alpha_norm=3.0, alpha=6)(images, place)
    expected = 3 * (((images - mean) / spans) ** 6).flatten(1).mean(dim=1)
    assert torch.allclose(found, expected, rtol=1e-6)
    flat = Regularization(total_variation=1.0)(images.double(), place)
    deep = images.double()[:, :, None]
    solid = type(place)(Grid.default((1, 12, 10), (9.0, 1.0, 1.5)), place.statistics, place.like)
    assert torch.allclose(flat, Regularization(total_variation=1.0)(deep, solid))


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_a_weight_of_the_total_variation_means_the_same_at_every_resolution(
    rank: int, beta: float
) -> None:
    place = surface(rank)
    images = place.noise(["a", "b"]).double()
    penalty = Regularization(total_variation=1.5, beta=beta)
    grid = Grid.default(place.grid.shape, tuple(4 * step for step in place.grid.spacing))
    coarse = type(place)(grid, place.statistics, place.like)
    assert torch.allclose(penalty(images, place), penalty(images, coarse), rtol=1e-5)
    # With cubic voxels it is the plain sum of squared differences.
    cubes = type(place)(Grid.default(place.grid.shape, (3.0,) * rank), place.statistics, place.like)
    scaled = images / place.per_channel(place.statistics.range)
    plain = total_variation(scaled, (1.0,) * rank, beta)
    assert torch.allclose(penalty(images, cubes), 1.5 * plain, rtol=1e-5)
