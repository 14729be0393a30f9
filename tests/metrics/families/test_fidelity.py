"""Fidelity and ROAD: orders, protocols, ramps that are imputed exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from metric_cases import LinearClasses, bright, metric_context, value
from networks import images, segmenter
from torch import Tensor, nn

from voxplain.engine.masks import Blur, Constant, Mean, Noise
from voxplain.image import Image
from voxplain.metrics import MapField, MetricContext
from voxplain.metrics.families.fidelity import Fidelity
from voxplain.metrics.queries.removal import RankedMasks, Removal

PROTOCOLS = {"inform": 40, "brocki2022": 40, "thesis2024": 100}
every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
SEGMENT = {"kind": "pixelwise", "label": 1}


class Threshold(nn.Module):
    """Class 1 while more than half of the image's brightness is left."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = nn.Parameter(torch.tensor(limit, dtype=torch.float64))

    def forward(self, image: Tensor) -> Tensor:
        left = image.flatten(1).sum(1)
        return torch.stack([self.limit.expand_as(left), left], dim=1)


def _halved(rank: int) -> tuple[MetricContext, Tensor]:
    image = bright(rank, 1, 8 if rank == 2 else 4)
    image -= image.amin()
    return metric_context(Threshold(float(image.sum()) / 2), image), image


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("protocol", ["inform", "brocki2022"])
def test_fidelity_by_hand(protocol: str, rank: int) -> None:
    """Accuracy curves are steps: 1 while the class stays, 0 after."""
    context, image = _halved(rank)
    result = value("fidelity", MapField("exact", image), context, protocol=protocol)
    ordered, total = image.flatten().sort(descending=True).values, float(image.sum())
    areas = []
    for values in (ordered, ordered.flip(0)):
        counts = [round(len(values) * step / 40) for step in range(41)]
        kept = [float(total - float(values[:count].sum()) > total / 2) for count in counts]
        areas.append(np.trapezoid(kept, dx=1 / 40))
    assert result.value == pytest.approx(areas[1] - areas[0], abs=1e-12)
    assert result.value > 0.1
    assert result.facts["fill"] == "dark"


@every_protocol
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_the_reversed_order_negates_it(protocol: str, task: str) -> None:
    if task == "classification":
        context, image = _halved(2)
    else:
        image = images(2, 1, 1, 8)[0].double()
        context = metric_context(segmenter().double(), image, target=SEGMENT)
    values = image + torch.randn(1, 8, 8, dtype=torch.float64)
    there = value("fidelity", MapField("m", values), context, protocol=protocol)
    back = value("fidelity", MapField("m", -values), context, protocol=protocol)
    assert there.value == pytest.approx(-back.value, abs=1e-9)
    assert there.value != 0


@every_protocol
def test_random_maps_have_no_fidelity(protocol: str) -> None:
    context, _ = _halved(2)
    values = [
        value(
            "fidelity", MapField("m", torch.randn(1, 8, 8), key=str(n)), context, protocol=protocol
        ).value
        for n in range(60)
    ]
    assert abs(np.mean(values)) < 3 * np.std(values, ddof=1) / np.sqrt(60)


@every_protocol
def test_protocols_have_their_own_levels_and_fills(protocol: str) -> None:
    context, image = _halved(2)
    metric = Fidelity(protocol=protocol)
    removals = [query for query in metric.queries(context.engine) if isinstance(query, Removal)]
    assert {query.levels for query in removals} == {PROTOCOLS[protocol]}
    assert {query.cost(context.engine) for query in removals} == {PROTOCOLS[protocol] + 1}
    fills = {type(query.fill) for query in removals}
    expected: dict[str, Any] = {
        "inform": {Constant, Blur, Mean},
        "brocki2022": {Constant},
        "thesis2024": {Constant, Mean},
    }
    assert fills == expected[protocol]
    before = context.forwards
    result = value(metric, MapField("m", image), context)
    # Both orders share their ends, and 100 levels of 64 voxels are 64.
    assert context.forwards - before == len(removals) * min(PROTOCOLS[protocol], image.numel())
    if protocol == "inform":
        assert {"score_blur", "score_mean"} <= set(result.facts)
    if protocol == "thesis2024":
        assert set(result.facts) == {"dark", "half", "bright", "mean"}


def test_half_bright_lies_between_dark_and_bright() -> None:
    """For each channel of the image, not at its mean."""
    image = bright(2, 2, 4)
    image[1] = image[1] ** 8 * 100
    ends = image.flatten(1)
    expected = ((ends.amin(1) + ends.amax(1)) / 2).tolist()
    assert Fidelity(protocol="thesis2024")._half_bright(image) == pytest.approx(expected)
    assert Fidelity(dark=-1.0, bright=2.0)._half_bright(image) == (0.5, 0.5)


def test_class_zero_is_filled_bright() -> None:
    """A dark fill is evidence for class 0, which would then never be lost."""
    image = bright(2, 1, 8)
    target = {"kind": "class_score", "label": 0}
    context = metric_context(Threshold(float(image.sum()) * 1.05), image, target=target)
    result = value("fidelity", MapField("m", -image), context, protocol="brocki2022")
    assert result.facts["fill"] == "bright"
    assert result.value > 0


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("spacing", [None, (3.0, 1.0, 0.8)], ids=["unknown", "anisotropic"])
def test_a_ramp_is_imputed_exactly(
    rank: int, share: float, spacing: tuple[float, ...] | None
) -> None:
    """Offsets of two dimensions leave an error of 0.79, and NaN in 3-D."""
    side = 12 if rank == 2 else 7
    axes = [torch.arange(float(side), dtype=torch.float64)] * rank
    grid = torch.meshgrid(*axes, indexing="ij")
    ramp = sum((2.0 + axis) * values for axis, values in enumerate(grid))[None]
    inside = torch.zeros((side,) * rank, dtype=torch.bool)
    inside[(slice(1, -1),) * rank] = True
    places = inside.flatten().nonzero()[:, 0]
    order = places[torch.randperm(len(places))]
    masks = RankedMasks(order, (round(share * len(order)),), (side,) * rank)
    image = Image.from_array(ramp, spacing[:rank]) if spacing else ramp
    context = metric_context(LinearClasses(tuple(ramp.shape)), image)
    (painter,) = Noise(sigma=0).painters(context.input, masks)
    imputed = painter.painted(range(1))[0]
    assert float((imputed - ramp).abs().max()) < 1e-3 * float(ramp.abs().max())
    assert context.predict_masked(masks, Noise(sigma=0)).scores == pytest.approx(
        context.score, rel=1e-3, abs=1e-2
    )


@pytest.mark.parametrize("rank", [2, 3])
def test_road_tells_orders_apart(rank: int) -> None:
    """Removing relevant voxels costs more, though imputation from neighbors gives some back."""
    source = torch.Generator().manual_seed(1)
    image = torch.rand(1, *(8,) * rank, generator=source, dtype=torch.float64)
    context = metric_context(Threshold(1.0), image)
    values = image  # each voxel's brightness is its contribution
    result = value("road", MapField("m", values), context)
    assert [share for share, _ in result.curve] == [0.1, 0.2, 0.3, 0.5, 0.7, 0.9]
    assert result.value < 1
    assert result.facts["gap"] > 0.1
    reversed_ = value("road", MapField("m", -values), context)
    assert reversed_.facts["gap"] == pytest.approx(-result.facts["gap"], abs=1e-9)
    assert result.value == pytest.approx(np.mean([y for _, y in result.curve]))


@pytest.mark.parametrize("rank", [2, 3])
def test_road_guesses_by_distances_in_mm(rank: int) -> None:
    """Thick slices give another score; cubic voxels of any size the same."""
    image = bright(rank, 1, 8)

    def road(*spacing: float) -> float:
        context = metric_context(Threshold(1.0), Image.from_array(image, spacing))
        return value("road", MapField("m", image), context).value

    unit, coarse, thick = road(*(1,) * rank), road(*(4,) * rank), road(4, *(1,) * (rank - 1))
    assert coarse == unit
    assert abs(thick - unit) > 1e-4


class Brightest(nn.Module):
    """The class whose quarter of the image is brightest."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, image: Tensor) -> Tensor:
        return self.factor * image.flatten(1).view(len(image), 4, -1).sum(2)


@pytest.mark.parametrize("label", range(4))
def test_every_class_but_the_first_is_filled_dark(label: int) -> None:
    image = bright(2, 1, 8)
    image.flatten(1).view(4, -1)[label] += 2
    target = {"kind": "class_score", "label": label}
    context = metric_context(Brightest(), image, target=target)
    result = value("fidelity", MapField("m", image), context, protocol="brocki2022")
    assert result.facts["fill"] == ("bright" if label == 0 else "dark")


@pytest.mark.parametrize("rank", [2, 3])
def test_road_of_a_negative_score_is_in_units_of_its_size(rank: int) -> None:
    """Adding a constant to the score changes the unit of its changes, and nothing else."""
    image = bright(rank, 1, 6)
    whole, field = float(image.sum()), MapField("m", image)
    changes = []
    for offset in (0.0, -1.5 * whole, -3.0 * whole):
        context = metric_context(Offset(offset), image)
        assert context.score == pytest.approx(whole + offset)
        result = value("road", field, context)
        size = abs(context.score)
        changes.append(((result.value - 1) * size, result.facts["gap"] * size))
    assert changes[1] == pytest.approx(changes[0])
    assert changes[2] == pytest.approx(changes[0])
    assert changes[0][0] < 0


class Offset(nn.Module):
    """Class 1 is the brightness of the image and a constant."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(offset, dtype=torch.float64))

    def forward(self, image: Tensor) -> Tensor:
        total = image.flatten(1).sum(1) + self.offset
        return torch.stack([torch.zeros_like(total), total], dim=1)
