"""Uncertainty: deviations by hand, and draws of dropout that are the same in every call."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from metric_cases import LinearClasses, bright, explained, metric_context, reason, value
from networks import convolution, images, segmenter, untouched
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.engine.variants.dropout import dropout_draw, dropout_layers
from voxplain.engine.variants.perturbations import MEDICAL
from voxplain.metrics import MapField
from voxplain.metrics.curves import rank_correlation
from voxplain.metrics.families import uncertainty
from voxplain.metrics.families.uncertainty import Spread
from voxplain.models.model import Model

SCORE = {"kind": "class_score", "label": 1}
SEGMENT = {"kind": "pixelwise", "label": 1}
every_rank = pytest.mark.parametrize("rank", [2, 3])
IN_TURN = ("noise", "shift", "bias_field", "rotation")


class Dropping(nn.Module):
    """A segmenter with dropout of units and of channels, one of them used twice."""

    def __init__(self, rank: int, p: float = 0.5) -> None:
        super().__init__()
        torch.manual_seed(rank)
        conv = convolution(rank)
        self.conv1, self.conv2 = conv(1, 6, 3, padding=1), conv(6, 6, 3, padding=1)
        self.head = conv(6, 2, 1)
        self.channels = getattr(nn, f"Dropout{rank}d")(p)
        self.units = nn.Dropout(p)

    def forward(self, image: Tensor) -> Tensor:
        features = self.units(torch.tanh(self.conv1(image)))
        features = self.units(torch.tanh(self.conv2(self.channels(features))))
        return self.head(features)


@every_rank
def test_augmentation_of_a_linear_score_by_hand(rank: int) -> None:
    """Input x gradient is w x: its changes are known, and brought back where the image moved."""
    image = bright(rank, 1, 6)
    network = LinearClasses(tuple(image.shape))
    context = explained(network, image, "saliency", "input_x_gradient")
    field, weight = context.fields["input_x_gradient"], network.weight.detach()[1]
    back = []
    for draw in range(6):
        around = MEDICAL[IN_TURN[draw % 4]]
        changed = around.changed(image, context.input.key, draw // 4)
        back.append(around.returned(weight * changed, draw // 4)[0])
    stacked = torch.stack(back)
    result = value("map_uncertainty", field, context, draws=6)
    expected = float(stacked.std(dim=0).mean()) / float((weight * image).abs().mean())
    assert result.value == pytest.approx(expected, rel=1e-6)
    unsettled = (stacked.std(dim=0) > stacked.mean(dim=0).abs()).double().mean()
    assert result.facts["unsettled"] == float(unsettled)


@every_rank
def test_target_and_map_follow_a_moved_image(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One convolution and an object far from the border: shifts alone cause no deviation."""
    monkeypatch.setattr(uncertainty, "_CHANGES", ("shift",))
    network = convolution(rank)(1, 2, 3, padding=1).double()
    image = torch.zeros(1, *(8,) * rank, dtype=torch.float64)
    image[(0, *(slice(2, 5),) * rank)] = bright(rank, 1, 3)[0]
    target = {"kind": "region", "label": 1, "voxel": (3,) * rank}
    context = explained(network, image, "input_x_gradient", target=target)
    result = value("map_uncertainty", context.fields["input_x_gradient"], context, draws=4)
    assert result.value == pytest.approx(0, abs=1e-9)


def test_a_spread_is_mean_and_deviation() -> None:
    values = 1e6 + torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    spread = Spread()
    for row in values:
        spread.add(row)
    assert torch.allclose(spread.mean, values.mean(dim=0), rtol=1e-12)
    assert torch.allclose(spread.deviation, values.std(dim=0), rtol=1e-6)


@every_rank
@pytest.mark.parametrize("measure", ["deviation", "entropy"])
def test_predictions_by_hand(rank: int, measure: str) -> None:
    network, image = segmenter(rank).double(), images(rank)[0].double()
    context = explained(network, image, "saliency", target=SEGMENT)
    chances = []
    for draw in range(4):
        around = MEDICAL[IN_TURN[draw]]
        changed = around.changed(image, context.input.key, 0)
        with torch.no_grad():
            chance = network(changed[None]).softmax(dim=1)[:, 1]
        chances.append(around.returned(chance, 0)[0])
    mean, deviation = torch.stack(chances).mean(dim=0), torch.stack(chances).std(dim=0)
    entropy = -(mean * mean.log() + (1 - mean) * (1 - mean).log())
    field = context.fields["saliency"]
    expected = rank_correlation(
        field.values.abs(), deviation if measure == "deviation" else entropy
    )
    result = value("uncertainty_correlation", field, context, draws=4, uncertainty=measure)
    assert result.value == pytest.approx(expected, abs=1e-6)


def test_a_map_of_the_uncertainty_itself_correlates() -> None:
    """Magnitudes count, so that minus the uncertainty is as good; controls need no method."""
    context = explained(segmenter().double(), images()[0].double(), "saliency", target=SEGMENT)
    query = ("uncertainty_correlation", context.fields["saliency"])
    value(*query, context)
    (spread,) = (result for result in context._cache.values() if isinstance(result, Spread))
    for sign in (1, -1):
        field = MapField("control", sign * spread.deviation[None])
        assert value("uncertainty_correlation", field, context).value == pytest.approx(1)
    assert context.forwards == 8


def test_one_logit_has_two_classes() -> None:
    torch.manual_seed(0)
    network, image = nn.Conv2d(1, 1, 3, padding=1).double(), images()[0].double()
    values, correlations = torch.randn(1, 6, 6), []
    for label in (0, 1):
        context = metric_context(
            network, image, {"m": values}, target={"kind": "pixelwise", "label": label}
        )
        correlations.append(value("uncertainty_correlation", context.fields["m"], context).value)
    assert correlations[0] == pytest.approx(correlations[1])


@every_rank
def test_one_draw_of_dropout_is_one_network(rank: int) -> None:
    """The same units for every call, batch, and copy; half of them, at twice the size."""
    model, image = Model(Dropping(rank).double().eval()), images(rank, 1, 3).double()
    with untouched(model.network), torch.no_grad():
        dropped = dropout_draw(model, "key", 0)
        together = dropped(image)
        for row in range(3):
            assert torch.allclose(dropped(image[row : row + 1])[0], together[row], atol=1e-12)
        assert torch.allclose(dropped.in_double()(image), together)
        again = copy.deepcopy(dropped.network)
        assert torch.allclose(again(image), together)
        assert torch.allclose(again(image), together)  # its calls start anew as well
        assert torch.allclose(dropout_draw(model, "key", 0)(image), together)
        assert not torch.allclose(dropout_draw(model, "key", 1)(image), together)
        assert not torch.allclose(dropout_draw(model, "other", 0)(image), together)
        assert not torch.allclose(model(image), together)


@every_rank
def test_what_is_dropped(rank: int) -> None:
    """Single numbers by one layer, whole channels by the other; on average nothing changes."""
    shape = (64, *(8,) * rank)
    dense = torch.ones(1, *shape, dtype=torch.float64)
    units = dropout_draw(Model(nn.Sequential(nn.Dropout(0.25)).eval()), "key", 0)(dense)[0]
    assert set(units.unique().tolist()) == {0.0, 1 / 0.75}
    assert float(units.mean()) == pytest.approx(1, abs=0.05)
    assert float(units.flatten(1).std(dim=1).min()) > 0
    layer = getattr(nn, f"Dropout{rank}d")(0.25)
    channels = dropout_draw(Model(nn.Sequential(layer).eval()), "key", 0)(dense)[0]
    assert float(channels.flatten(1).std(dim=1).max()) == 0
    assert set(channels.unique().tolist()) == {0.0, 1 / 0.75}
    assert not dropout_draw(Model(nn.Sequential(nn.Dropout(1.0)).eval()), "key", 0)(dense).any()


def test_two_calls_of_a_layer_drop_other_units() -> None:
    network = nn.Sequential()
    network.add_module("first", shared := nn.Dropout(0.5))
    network.add_module("second", shared)
    output = dropout_draw(Model(network.eval()), "key", 0)(torch.ones(1, 4000))
    assert float((output > 0).float().mean()) == pytest.approx(0.25, abs=0.03)


@every_rank
def test_dropout_by_hand(rank: int) -> None:
    network, image = Dropping(rank).double().eval(), images(rank)[0].double()
    target = {"kind": "volume", "label": 1}
    with untouched(network):
        context = explained(network, image, "saliency", target=target)
        field = context.fields["saliency"]
        result = value("map_uncertainty", field, context, source="dropout", draws=3)
        uncertain = value("uncertainty_correlation", field, context, source="dropout", draws=3)
    maps, chances = [], []
    for draw in range(3):
        dropped = dropout_draw(Model(network), context.input.key, draw)
        maps.append(explain(dropped, image[None], "saliency", target)["saliency"].map[0, 0])
        with torch.no_grad():
            chances.append(dropped(image[None]).softmax(dim=1)[0, 1])
    deviation = torch.stack(maps).double().std(dim=0)
    assert result.value == pytest.approx(float(deviation.mean() / field.values.abs().mean()))
    assert result.value > 0
    by_hand = rank_correlation(field.values.abs(), torch.stack(chances).std(dim=0))
    assert uncertain.value == pytest.approx(by_hand)


@pytest.mark.parametrize("method", ["integrated_gradients", "lrp", "grad_cam", "occlusion"])
def test_every_kind_of_method_sees_the_dropped_units(method: str) -> None:
    network, image = Dropping(2).eval(), images(2, 1, 1, 8)[0]
    context = explained(network, image, method, target={"kind": "volume", "label": 1})
    parameters = {"source": "dropout", "draws": 2}
    assert value("map_uncertainty", context.fields[method], context, **parameters).value > 0


def test_windows_share_one_draw_of_dropout() -> None:
    """Every window loses the same units: with units of channels alone, windows change nothing."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 1), nn.Tanh(), nn.Dropout2d(0.5), nn.Conv2d(8, 2, 1))
    image, values = images(2, 1, 1, 8)[0], []
    for window in (None, {"size": 5, "overlap": 0.4, "batch": 3}):
        context = explained(Model(network.eval(), window=window), image, "saliency", target=SEGMENT)
        field = context.fields["saliency"]
        parameters: dict[str, Any] = {"source": "dropout", "draws": 4}
        both = ("map_uncertainty", "uncertainty_correlation")
        values.append([value(metric, field, context, **parameters).value for metric in both])
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    assert all(math.isfinite(value_of_whole) and value_of_whole for value_of_whole in values[0])


def test_missing_inputs_are_named() -> None:
    context = explained(segmenter(), images()[0], "saliency", target=SEGMENT)
    field = context.fields["saliency"]
    for metric in ("map_uncertainty", "uncertainty_correlation"):
        assert "no dropout layer" in reason(metric, field, context, source="dropout")
    assert not dropout_layers(nn.Sequential(nn.Dropout(0.0), nn.ReLU()))
    image = bright(2, 1, 4)
    context = explained(LinearClasses(tuple(image.shape)), image, "saliency")
    field = context.fields["saliency"]
    assert "dense output" in reason("uncertainty_correlation", field, context)
    assert "no method that could explain" in reason(
        "map_uncertainty", MapField("x", field.map), context
    )
    context = explained(LinearClasses((1, 4, 4)), torch.ones(1, 4, 4).double(), "saliency")
    field = context.fields["saliency"]
    assert "image is constant" in reason("map_uncertainty", field, context)
    small = nn.Sequential(nn.Conv2d(1, 2, 3))
    context = explained(small, images()[0], "saliency", target=SEGMENT)
    field = context.fields["saliency"]
    said = reason("uncertainty_correlation", field, context)
    assert "the output covers voxels 1 to 4 of 6, 1 to 4 of 6, and no others" in said
