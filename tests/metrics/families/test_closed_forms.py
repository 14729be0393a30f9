"""Closed forms of the faithfulness metrics for linear scores."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from injected import GivenChanges, GivenInfidelity
from metric_cases import (
    BLOCKS,
    CLASS_ONE,
    LinearClasses,
    bright,
    explained,
    metric_context,
    number,
    present,
    reason,
    value,
)
from torch import Tensor, nn
from torch.nn import functional

from voxplain.attribution import explain
from voxplain.metrics import MapField, evaluate
from voxplain.metrics.curves import correlation, normalized
from voxplain.metrics.maps import Undefined

every_shape = pytest.mark.parametrize(("rank", "channels"), [(2, 1), (2, 3), (3, 1), (3, 2)])
MAPS = ("saliency", "input_x_gradient")
NOTHING = 1e-12


def _linear(rank: int, channels: int) -> tuple[LinearClasses, Tensor]:
    image = bright(rank, channels, 6 if rank == 2 else 4)
    return LinearClasses(tuple(image.shape)), image


def _shared(network: LinearClasses, image: Tensor) -> Tensor:
    """The contribution of each voxel and channel to class 1: w x."""
    return network.weight.detach()[1] * image


@every_shape
@pytest.mark.parametrize("perturbation", ["noise", "boxes"])
@pytest.mark.parametrize("name", MAPS)
def test_an_exact_map_has_no_infidelity(
    rank: int, channels: int, perturbation: str, name: str
) -> None:
    context = explained(*_linear(rank, channels), name)
    field = context.fields[name]
    parameters: dict[str, Any] = {"perturbation": perturbation, "window": 0.5, "fill": "zero"}
    assert 0 <= value("infidelity", field, context, **parameters).value < NOTHING
    assert value("infidelity_normalized", field, context, **parameters).value < NOTHING


@pytest.mark.parametrize("perturbation", ["noise", "boxes"])
def test_only_the_normalized_form_forgives_a_wrong_scale(perturbation: str) -> None:
    network, image = _linear(2, 1)
    context = metric_context(network, image)
    parameters: dict[str, Any] = {"perturbation": perturbation, "fill": "zero"}
    tripled = 3 * _shared(network, image)
    assert number("infidelity", tripled, context, **parameters) > 0.01
    result = value("infidelity_normalized", MapField("tripled", tripled), context, **parameters)
    assert result.value < NOTHING
    assert result.facts["scale"] == pytest.approx(1 / 3)


@every_shape
def test_shares_are_counted_from_the_baseline_of_their_method(rank: int, channels: int) -> None:
    """w (x - b) stands for a change of x - b, not of x."""
    method = {"name": "integrated_gradients", "baseline": 0.3, "steps": 2, "label": "shares"}
    network, image = _linear(rank, channels)
    context = explained(network, image, method)
    result = value("infidelity_normalized", context.fields["shares"], context)
    assert result.value < NOTHING
    assert result.facts["scale"] == pytest.approx(1)
    bare = number("infidelity_normalized", context.fields["shares"].map, context)
    assert bare > 0.001


@pytest.mark.parametrize("rank", [2, 3])
def test_one_value_for_all_channels_is_divided_among_them(rank: int) -> None:
    """A tenth of the image gone is a tenth of every share gone."""
    network, image = _linear(rank, 3)
    summed = _shared(network, image).sum(dim=0, keepdim=True)
    changes = GivenChanges.of(torch.stack([0.1 * image, -0.3 * image]))
    metric = GivenInfidelity(given=changes, draws=2)
    assert value(metric, MapField("summed", summed), metric_context(network, image)).value < NOTHING


@every_shape
@pytest.mark.parametrize(
    "metric", ["faithfulness_correlation", "sensitivity_n", "faithfulness_estimate"]
)
def test_an_exact_map_correlates_with_every_drop(rank: int, channels: int, metric: str) -> None:
    network, image = _linear(rank, channels)
    context = metric_context(network, image)
    exact = number(metric, _shared(network, image), context, regions=BLOCKS, fill="zero")
    assert exact == pytest.approx(1, abs=NOTHING)
    reversed_ = number(metric, -_shared(network, image), context, regions=BLOCKS, fill="zero")
    assert reversed_ == pytest.approx(-1, abs=NOTHING)


def test_a_gradient_counts_for_what_the_fill_changes() -> None:
    """Whatever the fill, <w, x - filled> is the drop of a linear score."""
    context = explained(*_linear(2, 2), "saliency")
    for fill in ("mean", "blur", 0.2):
        result = value(
            "faithfulness_correlation",
            context.fields["saliency"],
            context,
            regions=BLOCKS,
            fill=fill,
        )
        assert result.value == pytest.approx(1, abs=NOTHING)


def test_sensitivity_n_has_a_point_for_every_size() -> None:
    network, image = _linear(2, 1)
    context = metric_context(network, image)
    field = MapField("exact", _shared(network, image))
    result = value("sensitivity_n", field, context, regions=BLOCKS, fill="zero")
    assert [share for share, _ in result.curve] == [0.05, 0.1, 0.2, 0.4, 0.8]


@every_shape
def test_paths_on_a_linear_score_are_complete(rank: int, channels: int) -> None:
    context = explained(
        *_linear(rank, channels), {"name": "integrated_gradients", "steps": 3}, "saliency"
    )
    residual = value("completeness_residual", context.fields["integrated_gradients"], context)
    assert residual.value == pytest.approx(0, abs=1e-6)  # maps are kept in float32


def _removed_one_by_one(network: LinearClasses, image: Tensor, order: np.ndarray) -> np.ndarray:
    """Scores of class 1 while voxels, all channels at once, become 0."""
    weights = network.weight.detach()[1].flatten(1).numpy()
    left, bias = image.flatten(1).numpy().copy(), float(network.bias.detach()[1])
    scores = [float((weights * left).sum()) + bias]
    for voxel in order:
        left[:, voxel] = 0
        scores.append(float((weights * left).sum()) + bias)
    return np.array(scores)


def _mean_of_trapezoids(curve: np.ndarray) -> float:
    return float(((curve[1:] + curve[:-1]) / 2).mean())


@every_shape
def test_removal_by_hand(rank: int, channels: int) -> None:
    network, image = _linear(rank, channels)
    present(network)
    shares, context = _shared(network, image), metric_context(network, image)
    relevance = shares.sum(dim=0).flatten().numpy()
    order = np.argsort(-relevance)
    parameters: dict[str, Any] = {"fill": "zero", "levels": len(order)}
    whole, empty = context.score, float(network.bias.detach()[1])

    most = (_removed_one_by_one(network, image, order) - empty) / (whole - empty)
    least = (_removed_one_by_one(network, image, order[::-1]) - empty) / (whole - empty)
    deletion, insertion = _mean_of_trapezoids(most), _mean_of_trapezoids(least[::-1])

    assert number("deletion", shares, context, **parameters) == pytest.approx(deletion, abs=NOTHING)
    assert number("insertion", shares, context, **parameters) == pytest.approx(
        insertion, abs=NOTHING
    )
    gap = _mean_of_trapezoids(least) - deletion
    assert number("morf_lerf_gap", shares, context, **parameters) == pytest.approx(gap, abs=NOTHING)
    drops = (1 - most) * (whole - empty)
    flipping = number("pixel_flipping", shares, context, **parameters)
    assert flipping == pytest.approx(drops.mean(), abs=1e-10)
    rising = number("monotonicity", shares, context, **parameters)
    assert rising == pytest.approx((relevance >= 0).mean())
    assert deletion + insertion == pytest.approx(1)  # a linear score loses what it never gets


@every_shape
@pytest.mark.parametrize("there", [True, False])
def test_a_gap_is_positive_for_exact_maps_whether_the_class_is_there_or_not(
    rank: int, channels: int, there: bool
) -> None:
    """An image may score less than the filled one, and still has evidence for the class."""
    network, image = _linear(rank, channels)
    present(network, 0.5 if there else -0.5)
    context, shares = metric_context(network, image), _shared(network, image)
    assert (float(shares.sum()) > 0) == there
    undefined = reason("deletion", MapField("m", shares), context, fill="zero", levels=8)
    assert ("no loss to normalize by" in undefined) != there
    parameters: dict[str, Any] = {"fill": "zero", "levels": 8}
    gap = number("morf_lerf_gap", shares, context, **parameters)
    assert gap > 0.1
    assert number("morf_lerf_gap", -shares, context, **parameters) == pytest.approx(-gap)


def test_nearly_equal_ends_are_too_close_to_normalize() -> None:
    """A gap of 518 is what a score of -0.08 beside -0.1 once gave."""
    network, image = _linear(2, 1)
    with torch.no_grad():
        network.weight[1] -= (network.weight[1] * image).sum() / image.sum() - 1e-4
    field, context = MapField("m", _shared(network, image)), metric_context(network, image)
    for metric in ("deletion", "insertion", "morf_lerf_gap", "irof"):
        assert "too close" in reason(metric, field, context, fill="zero", **_blocks(metric))
    assert number("pixel_flipping", field.map, context, fill="zero") > 0


def test_a_scale_exists_for_all_maps_or_for_none() -> None:
    """Whatever the scores on the way are: those of the ends alone decide."""
    for low in (-1e6, 0.0):
        on_the_way = torch.tensor([10.0, low, 9.0], dtype=torch.float64)
        assert normalized(on_the_way, 10.0, 9.0).tolist() == [1.0, low - 9.0, 0.0]
        with pytest.raises(Undefined, match="too close to normalize"):
            normalized(on_the_way, 10.0, 9.95)


def test_the_scale_of_road_is_that_of_the_image() -> None:
    network, image = _linear(2, 1)
    context = metric_context(network, image)
    maps = [_shared(network, image), -_shared(network, image), torch.rand_like(image)]
    assert all(math.isfinite(number("road", one, context)) for one in maps)
    with torch.no_grad():  # a score of nearly 0 beside another class
        network.bias.copy_(torch.tensor([100.0, 0.0, 0.0]))
        network.weight[1] -= (network.weight[1] * image).sum() / image.sum() - 1e-5
    context = metric_context(network, image)
    for one in maps:
        assert "too close to 0 to normalize" in reason("road", MapField("m", one), context)


def _blocks(metric: str) -> dict[str, Any]:
    return {"regions": BLOCKS} if metric == "irof" else {}


def test_the_curve_of_deletion_is_the_sorted_sum() -> None:
    network, image = _linear(2, 1)
    shares = _shared(network, image)
    field = MapField("exact", shares)
    result = value(
        "deletion", field, metric_context(network, image), fill="zero", levels=shares.numel()
    )
    removed = shares.flatten().sort(descending=True).values.cumsum(0) / shares.sum()
    expected = [1.0, *(1 - removed).tolist()]
    assert [y for _, y in result.curve] == pytest.approx(expected, abs=NOTHING)
    assert [x for x, _ in result.curve] == pytest.approx(np.linspace(0, 1, 37))


def test_insertion_begins_with_nothing_and_ends_with_the_image() -> None:
    network, image = _linear(2, 1)
    shares = _shared(network, image)
    field = MapField("exact", shares)
    result = value(
        "insertion", field, metric_context(network, image), fill="zero", levels=shares.numel()
    )
    kept = shares.flatten().sort(descending=True).values.cumsum(0) / shares.sum()
    assert [y for _, y in result.curve] == pytest.approx([0, *kept.tolist()], abs=NOTHING)


@every_shape
def test_regions_by_hand(rank: int, channels: int) -> None:
    network, image = _linear(rank, channels)
    present(network)
    shares, context = _shared(network, image), metric_context(network, image)
    pool = functional.avg_pool2d if rank == 2 else functional.avg_pool3d
    sums = pool(shares.sum(dim=0)[None], 2).flatten() * 2**rank
    ordered = sums.sort(descending=True).values.numpy()
    left = 1 - np.concatenate([[0], np.cumsum(ordered)]) / float(shares.sum())
    area = _mean_of_trapezoids(left)
    parameters: dict[str, Any] = {"regions": BLOCKS, "fill": "zero"}
    assert number("irof", shares, context, **parameters) == pytest.approx(1 - area, abs=NOTHING)
    assert number("selectivity", shares, context, **parameters) == pytest.approx(area, abs=NOTHING)
    lost = ((1 - left) * float(shares.sum())).mean()
    result = number("region_perturbation", shares, context, **parameters, levels=None)
    assert result == pytest.approx(lost, abs=1e-10)


def test_irrelevant_regions_are_separated_from_relevant_ones() -> None:
    network, image = _linear(2, 1)
    with torch.no_grad():
        network.weight[:, :, :2] = 0  # three blocks of nine change nothing
    shares, context = _shared(network, image), metric_context(network, image)
    parameters: dict[str, Any] = {"regions": BLOCKS, "fill": "zero"}
    assert number("non_sensitivity", shares, context, **parameters) == 0
    everywhere = shares.clone()
    everywhere[:, :2] = 1
    assert number("non_sensitivity", everywhere, context, **parameters) == pytest.approx(3 / 9)


def test_monotonicity_correlation_ranks_what_other_cases_change() -> None:
    network, image = _linear(2, 1)
    others = torch.stack([bright(seed=seed) for seed in range(1, 6)])
    context = metric_context(network, image, references=others)
    weights = network.weight.detach()[1]
    changes = (weights * (image - others)).view(5, 3, 2, 3, 2).sum((2, 4)).square().mean(0)
    perfect = changes.repeat_interleave(2, 0).repeat_interleave(2, 1)[None]
    metric = "monotonicity_correlation"
    assert number(metric, perfect, context, regions=BLOCKS) == pytest.approx(1)
    assert number(metric, 1 / perfect, context, regions=BLOCKS) == pytest.approx(-1)


def test_the_exact_gradient_beats_no_map_and_a_random_one() -> None:
    """Where noise of 1e-4, one sample and no target could not tell them apart."""
    network, image = _linear(3, 1)
    maps = {
        "exact": explain(network, image[None], "saliency", CLASS_ONE)["saliency"][0],
        "zero": torch.zeros_like(image),
        "noise": torch.randn_like(image),
    }
    scores = evaluate(
        network, image[None], [maps], ["infidelity", "infidelity_normalized"], CLASS_ONE
    )
    drop = 0.1**2 * float(network.weight[1].detach().square().sum())  # where the range is about 1
    assert scores.value("infidelity", "exact") < 1e-12
    assert scores.value("infidelity", "noise") > drop / 4
    assert scores.value("infidelity_normalized", "noise") > 0.5
    for row in scores.of(method="zero"):
        assert np.isnan(row.value)
        assert row.reason == "the map is constant"


@pytest.mark.parametrize("fill", ["mean", "blur", 0.2])
def test_a_gradient_counts_for_what_the_fill_changes_in_volumes(fill: str | float) -> None:
    """The blur that a map is held against is that of the regions, of as many axes."""
    context = explained(*_linear(3, 2), "saliency")
    field = context.fields["saliency"]
    for metric in ("faithfulness_correlation", "faithfulness_estimate"):
        result = value(metric, field, context, regions=BLOCKS, fill=fill)
        assert result.value == pytest.approx(1, abs=NOTHING)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_what_is_irrelevant_does_not_depend_on_units(scale: float) -> None:
    network, image = _linear(2, 1)
    with torch.no_grad():
        network.weight[:, :, :2] = 0
        network.weight *= scale
    shares, context = _shared(network, image), metric_context(network, image)
    parameters: dict[str, Any] = {"regions": BLOCKS, "fill": "zero"}
    for own_scale in (1e-3, 1.0, 1e3):
        values = own_scale * shares
        assert number("non_sensitivity", values, context, **parameters) == 0
        values[:, :2] = values.abs().amax()
        assert number("non_sensitivity", values, context, **parameters) == pytest.approx(3 / 9)


def test_a_quantity_that_varies_by_rounding_alone_is_constant() -> None:
    """Else rounding errors correlate, and any map seems faithful or not."""
    steps = torch.arange(8.0, dtype=torch.float64)
    for level in (0.1, -3.0, 1e6):
        nearly = level * (1 + 1e-15 * steps)
        for pair in ((nearly, steps), (steps, nearly)):
            with pytest.raises(Undefined, match="constant"):
                correlation(*pair)
        assert correlation(level * (1 + 1e-6 * steps), steps) == pytest.approx(np.sign(level))


class _Jitter(nn.Module):
    """100 for any image, up to what rounding might add or take."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = nn.Parameter(torch.tensor(size, dtype=torch.float64))

    def forward(self, image: Tensor) -> Tensor:
        wobble = self.size * ((image.flatten(1) == 0).sum(1) % 2)
        return torch.stack([torch.zeros_like(wobble), 100 + wobble], dim=1)


@pytest.mark.parametrize(("size", "share"), [(1e-5, 1.0), (1e-3, 0.5)])
def test_what_rounding_takes_is_no_fall(size: float, share: float) -> None:
    image = bright()
    context, values = metric_context(_Jitter(size), image), torch.rand_like(image)
    rising = number("monotonicity", values, context, fill="zero", levels=36)
    assert rising == pytest.approx(share)
