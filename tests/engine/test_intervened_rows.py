"""Many interventions in one batch, from the first replaced layer on, against one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import pytest
import torch
from planted_circuits import is_untouched, state_of
from torch import Tensor, nn

from voxplain.engine.context import Context
from voxplain.engine.intervened_rows import InterventionRows, Row
from voxplain.engine.interventions import Replacement, UnitSet
from voxplain.engine.observation import observe
from voxplain.engine.taps import INPUT, Tap
from voxplain.errors import ModelError
from voxplain.models.model import Model

EARLY, LATE = Tap("early"), Tap("late")


class SkipNetwork(nn.Module):
    """Convolutions with an in-place activation and a skip connection, in any rank."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        convolution = (nn.Conv2d, nn.Conv3d)[rank - 2]
        self.stem = nn.Sequential(convolution(2, 3, 3, padding=1), nn.ReLU(inplace=True))
        self.early = nn.Sequential(convolution(3, 4, 3, padding=1), nn.ReLU(inplace=True))
        self.late = convolution(7, 5, 3, padding=1)
        self.head = convolution(5, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        stem = self.stem(image)
        return self.head(torch.relu(self.late(torch.cat([stem, self.early(stem)], dim=1))))


class Counted(nn.Module):
    """How often it was called, on a copied network too, as the counter is shared."""

    count: ClassVar[dict[str, int]] = {}

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, value: Tensor) -> Tensor:
        Counted.count[self.name] = Counted.count.get(self.name, 0) + 1
        return value * 1.0


def case(rank: int) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    network = SkipNetwork(rank).eval()
    shape = (1, 2, *(9, 8, 7)[:rank])
    return network, torch.randn(shape), torch.randn(shape)


def collected(
    rows: InterventionRows, asked: Sequence[Row], tap: Tap, to_end: bool = True
) -> tuple[Tensor, list[Tensor]]:
    values: list[Tensor] = []
    outputs: list[Tensor] = []

    def seen(_: range, found: Mapping[Tap, Tensor], output: Tensor | None) -> None:
        values.append(found[tap])
        outputs.extend([] if output is None else [output])

    rows.run(asked, (tap,), seen, to_end=to_end)
    return torch.cat(values), outputs


@pytest.mark.parametrize("rank", [2, 3])
def test_rows_equal_single_observations(rank: int) -> None:
    network, image, other = case(rank)
    before, context = state_of(network), Context.open(network, image)
    donor = observe(Context.open(network, other), (EARLY, LATE, INPUT))
    asked: list[Row] = [
        (),
        (Replacement(EARLY, UnitSet((1,)), donor[EARLY]),),
        (Replacement(EARLY, UnitSet((0, 2)), donor[EARLY], outside=True),),
        (Replacement(EARLY, UnitSet(directions=torch.randn(2, 4)), donor[EARLY]),),
        (
            Replacement(EARLY, UnitSet((3,)), donor[EARLY]),
            Replacement(LATE, UnitSet((0, 4)), donor[LATE], outside=True),
        ),
    ]
    values, outputs = collected(InterventionRows(context, (EARLY, LATE)), asked, LATE)
    for row, value, output in zip(asked, values, torch.cat(outputs), strict=True):
        alone = observe(context, (LATE,), row)
        assert torch.allclose(value, alone[LATE], atol=1e-5)
        assert torch.allclose(output, alone.output[0], atol=1e-5)
    assert is_untouched(network, before)


def test_channels_of_the_image_are_replaced_too() -> None:
    network, image, other = case(2)
    context = Context.open(network, image)
    row = (Replacement(INPUT, UnitSet((1,)), other[0]),)
    values, _ = collected(InterventionRows(context, (INPUT,)), [row, ()], EARLY)
    mixed = torch.stack([image[0, 0], other[0, 1]])[None]
    assert torch.allclose(values[:1], network.early(network.stem(mixed)), atol=1e-5)
    assert torch.allclose(values[1:], network.early(network.stem(image)), atol=1e-5)


def test_what_lies_before_runs_once_and_what_lies_behind_not_at_all() -> None:
    network = nn.Sequential()
    for name in ("before", "here", "end", "behind"):
        network.add_module(name, Counted(name))
    image = torch.randn(1, 2, 6, 6)
    context = Context.open(network, image)
    rows = InterventionRows(context, (Tap("here"),))
    asked = [(Replacement(Tap("here"), UnitSet((0,)), image[0] + n),) for n in range(9)]
    collected(rows, asked[:1], Tap("end"))  # finds out where the layer is
    Counted.count.clear()
    values, _ = collected(rows, asked, Tap("end"), to_end=False)
    assert Counted.count.keys() == {"end"}
    expected = [torch.stack([image[0, 0] + n, image[0, 1]]) for n in range(9)]
    assert torch.equal(values, torch.stack(expected))


def test_gradients_equal_those_of_autograd() -> None:
    network, image, _ = case(2)
    rows = InterventionRows(Context.open(network, image), (EARLY,))
    heads = lambda value: [value[0, :2].square().mean(), value[0, 3].sum()]  # noqa: E731
    found = list(rows.gradients(EARLY, LATE, heads))
    stem = network.stem(image)
    leaf = network.early(stem).detach().requires_grad_(True)
    for gradient, number in zip(
        found, heads(network.late(torch.cat([stem, leaf], dim=1))), strict=True
    ):
        (expected,) = torch.autograd.grad(number, leaf, retain_graph=True)
        assert torch.allclose(gradient, expected[0], atol=1e-6)


class Mixing(nn.Module):
    """Subtracts the mean over the batch, so that images have to come alone."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Conv2d(2, 4, 1)
        self.late = nn.Conv2d(4, 5, 1)

    def forward(self, image: Tensor) -> Tensor:
        early = self.early(image)
        return self.late(early + early.mean(dim=(0, 2, 3), keepdim=True))


def test_rows_of_a_network_that_mixes_images_run_one_by_one() -> None:
    torch.manual_seed(0)
    network = Mixing().eval()
    image, other = torch.randn(2, 1, 2, 5, 4)
    context = Context.open(network, image)
    donor = observe(Context.open(network, other), (EARLY,))[EARLY]
    asked = [(Replacement(EARLY, UnitSet((k,)), donor),) for k in range(3)]
    values, _ = collected(InterventionRows(context, (EARLY,)), asked, LATE)
    for row, value in zip(asked, values, strict=True):
        assert torch.allclose(value, observe(context, (LATE,), row)[LATE], atol=1e-6)


def test_windows_are_refused() -> None:
    network, image, _ = case(2)
    model = Model(network, window={"size": [6, 6], "overlap": 0.5})
    with pytest.raises(ModelError, match="without windows"):
        InterventionRows(Context.open(model, image), (EARLY,))


@pytest.mark.parametrize("rank", [2, 3])
def test_a_network_that_comes_in_training_mode_is_asked_in_evaluation_mode(rank: int) -> None:
    """A factory gives it so: batch norm and dropout must not see what they remember."""
    network, image, other = case(rank)
    norm = (nn.BatchNorm2d, nn.BatchNorm3d)[rank - 2](3)
    network.add_module("stem", nn.Sequential(network.get_submodule("stem"), norm, nn.Dropout(0.5)))
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.cat([image, other]) + 1)
    before = state_of(network)
    context = Context.open(Model(network), image)
    expected = observe(context, (EARLY, LATE))
    donor = observe(Context.open(Model(network), other), (EARLY,))[EARLY]
    swapped = Replacement(EARLY, UnitSet((1,)), donor)
    found: dict[Tap, list[Tensor]] = {LATE: []}

    def seen(_: range, values: Mapping[Tap, Tensor], __: Tensor | None) -> None:
        found[LATE].extend(values[LATE])

    InterventionRows(context, [EARLY]).run([(), (swapped,)], [LATE], seen)
    torch.testing.assert_close(found[LATE][0], expected[LATE], rtol=1e-5, atol=1e-6)
    network.eval()
    asked: list[Tensor] = []

    def again(_: range, values: Mapping[Tap, Tensor], __: Tensor | None) -> None:
        asked.extend(values[LATE])

    InterventionRows(Context.open(Model(network), image), [EARLY]).run([(swapped,)], [LATE], again)
    torch.testing.assert_close(found[LATE][1], asked[0], rtol=1e-5, atol=1e-6)
    network.train()
    assert is_untouched(network, before)
