"""Ablation of units, and regions of the image that are changed, in networks that are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_circuits import (
    Chain,
    blob_cohort,
    convolution,
    is_untouched,
    noise_cohort,
    state_of,
    units_of,
    with_weights,
)
from torch import Tensor, nn

from voxplain.concepts.concept import Concept
from voxplain.concepts.interventions.ablation import Ablation, AblationSettings, unit_ablation
from voxplain.concepts.interventions.record import InterventionsRecord, interventions_record
from voxplain.concepts.interventions.region_swap import region_swap
from voxplain.concepts.interventions.regions import histogram_match, inserted, mean_shift, removed
from voxplain.concepts.links.nodes import ClassOutput, ConceptUnits
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.engine.interventions import UnitSet
from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError
from voxplain.grid import Grid
from voxplain.image import Image
from voxplain.models.model import Model

BOX = ClassOutput("box", (1,))


def by_name(found: tuple[Ablation, ...]) -> dict[tuple[str, str], Ablation]:
    return {(each.node, each.measure): each for each in found}


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("replaced_by", ["resample", "channel_mean"])
def test_only_the_unit_that_is_read_matters(rank: int, replaced_by: str) -> None:
    network = Chain(rank).eval()
    before = state_of(network)
    settings = AblationSettings(replaced_by=replaced_by)
    nodes = (*units_of("a", 0, 1), *units_of("c", 0))
    found = by_name(unit_ablation(network, blob_cohort(rank), nodes, [BOX], settings))
    for name in ("a0", "c0"):
        assert found[name, "dice"].drop.mean > 0.85
        assert found[name, "logit"].drop.mean > 0.85
        assert found[name, "dice"].drop.interval is not None
    assert found["a1", "dice"].drop.mean == found["a1", "logit"].drop.mean == 0
    assert found["a0", "logit"].clean == 0.5
    assert found["a1", "logit"].p == 1
    assert math.isclose(found["a0", "logit"].null, found["a0", "logit"].drop.mean / 8, rel_tol=1e-5)
    assert is_untouched(network, before)


class Wide(nn.Module):
    """40 units, of which class 1 reads three that see channel 0."""

    def __init__(self) -> None:
        super().__init__()
        head = torch.zeros(2, 40)
        head[1, [0, 8, 16]] = 1 / 3
        self.a = with_weights(convolution(2, 8, 40), torch.eye(8).repeat(5, 1), 2)
        self.head = with_weights(convolution(2, 40, 2), head, 2)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.a(image)) - 0.5


def test_a_concept_is_significant_against_random_sets_of_its_size() -> None:
    nodes = [
        ConceptUnits("read", Tap("a"), UnitSet((0, 8, 16))),
        ConceptUnits("not read", Tap("a"), UnitSet((10, 11, 12))),
    ]
    found = by_name(unit_ablation(Wide().eval(), blob_cohort(), nodes, [BOX]))
    assert found["read", "logit"].significant
    assert found["read", "logit"].q <= 0.05
    assert found["read", "logit"].drop.mean > found["read", "logit"].null_high
    assert not found["not read", "logit"].significant


def test_the_effect_on_a_region_is_measured_there() -> None:
    left = Concept("left", "mask", "explicit", "test", lambda case: _half(case, 0))
    right = Concept("right", "mask", "explicit", "test", lambda case: _half(case, 1))
    outputs = [replace(BOX, name=each.name, within=each) for each in (left, right)]
    cohort = one_sided()
    found = unit_ablation(Chain(2, read=(0, 1)).eval(), cohort, units_of("a", 0), outputs)
    drops = {(each.output, each.measure): each.drop.mean for each in found}
    assert drops["left", "logit"] == pytest.approx(1)
    assert drops["right", "logit"] == pytest.approx(0)


def _half(case: CohortCase, side: int) -> Tensor:
    mask = torch.zeros(case.image.grid.shape, dtype=torch.bool)
    middle = mask.shape[0] // 2
    mask[slice(0, middle) if side == 0 else slice(middle, None)] = True
    return mask


def one_sided() -> Cohort:
    """Channel 0 is bright left in the lesion, channel 1 right in it; one case is empty."""
    full = torch.zeros(8, 10, 8)
    full[0, 3:5, 2:6] = full[1, 5:7, 2:6] = 1
    labels = (full.sum(dim=0) > 0).long()
    images = [full, torch.zeros_like(full)]
    return Cohort.of(
        [
            CohortCase(str(n), str(n), Image(data, Grid.default((10, 8))), labels * (n == 0))
            for n, data in enumerate(images)
        ]
    )


def two_tissues(rank: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    shape = (8, 6, 5)[:rank]
    image = torch.randn(2, *shape)
    source, target = torch.zeros(2, *shape, dtype=torch.bool)
    source[:3], target[4:] = True, True
    image[:, source] += torch.tensor([2.0, -1.0])[:, None]
    return image, source, target


@pytest.mark.parametrize("rank", [2, 3])
def test_the_mean_is_shifted_and_the_contrast_stays(rank: int) -> None:
    image, source, target = two_tissues(rank)
    other = mean_shift(image, source, target)
    assert torch.allclose(other[:, target].mean(dim=1), image[:, source].mean(dim=1), atol=1e-5)
    assert torch.allclose(other[:, target].std(dim=1), image[:, target].std(dim=1), atol=1e-5)
    assert torch.equal(other[:, ~target], image[:, ~target])


@pytest.mark.parametrize("rank", [2, 3])
def test_the_histogram_is_matched_and_the_order_stays(rank: int) -> None:
    image, source, target = two_tissues(rank)
    other = histogram_match(image, source, target)
    for channel in range(2):
        wanted = np.quantile(image[channel, source].numpy(), [0.1, 0.5, 0.9])
        assert np.allclose(
            np.quantile(other[channel, target].numpy(), [0.1, 0.5, 0.9]), wanted, atol=0.25
        )
        assert torch.equal(other[channel, target].argsort(), image[channel, target].argsort())
    assert torch.equal(histogram_match(image, source, source)[:, ~source], image[:, ~source])


def test_a_lesion_is_removed_by_what_is_around_it() -> None:
    image = torch.full((1, 9, 9), 2.0)
    lesion = torch.zeros(9, 9, dtype=torch.bool)
    lesion[3:6, 3:6] = True
    image[0, lesion] = 7
    assert torch.allclose(removed(image, lesion, (1.0, 1.0)), torch.full((1, 9, 9), 2.0), atol=1e-4)


def test_a_lesion_is_inserted_where_it_may_be() -> None:
    image, donor = torch.zeros(1, 6, 6), torch.arange(16.0).view(1, 4, 4)
    lesion = torch.zeros(4, 4, dtype=torch.bool)
    lesion[1:3, 1] = True
    free = torch.ones(6, 6, dtype=torch.bool)
    free[2, 2] = False
    other, mask = inserted(image, free, donor, lesion)
    assert mask.nonzero().tolist() == [[3, 2]]
    assert other[0, 3, 2] == donor[0, 2, 1]
    assert torch.count_nonzero(other) == 1


class Reader(nn.Module):
    """Class 1 where channel 0 exceeds 1/2, class 2 where channel 1 does."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.stack([torch.full_like(image[:, 0], 0.5), image[:, 0], image[:, 1]], dim=1)


def bright_cohort(rank: int, cases: int = 4) -> Cohort:
    """Class 1 is bright in channel 0, class 2 in channel 1, each at another place in every case."""
    shape = (12, 10, 6)[:rank]
    found = []
    for number in range(cases):
        data = torch.zeros(2, *shape)
        labels = torch.zeros(shape, dtype=torch.long)
        labels[1 + number : 3 + number, 1:4] = 1
        labels[1 + number : 3 + number, 5:8] = 2
        data[0, labels == 1] = 1
        data[1, labels == 2] = 1
        data += 1e-3 * torch.arange(data.numel()).view(data.shape) / data.numel()
        image = Image(data, Grid.default(shape))
        found.append(CohortCase(f"{number}", f"{number}", image, labels))
    return Cohort.of(found)


CLASSES = [ClassOutput("one", (1,)), ClassOutput("two", (2,))]


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("kind", ["mean_shift", "histogram"])
def test_a_class_that_looks_like_another_one_is_lost(rank: int, kind: str) -> None:
    found = region_swap(Reader(), bright_cohort(rank), CLASSES, kind)
    assert {(each.source, each.target) for each in found} == {("one", "two"), ("two", "one")}
    for each in found:
        assert each.dice.mean == pytest.approx(1)
        assert each.logit.mean == pytest.approx(1, abs=0.01)
        assert each.dice.count == 4


def test_a_removed_class_is_lost_and_an_inserted_one_is_found() -> None:
    gone = region_swap(Reader(), bright_cohort(2), CLASSES, "removal")
    assert [each.dice.mean for each in gone] == pytest.approx([1, 1])
    there = region_swap(Reader(), bright_cohort(2), CLASSES, "insertion")
    assert {each.target for each in there} == {"one", "two"}
    for each in there:
        assert each.dice.mean == pytest.approx(1)
        assert each.logit.mean == pytest.approx(1, abs=0.01)


def test_regions_are_swapped_in_windows_too() -> None:
    windowed = Model(Reader(), window={"size": [6, 6], "overlap": 0.5})
    whole, parts = (
        region_swap(each, bright_cohort(2), CLASSES) for each in (Model(Reader()), windowed)
    )
    for first, second in zip(whole, parts, strict=True):
        assert first.logit.mean == pytest.approx(second.logit.mean, abs=1e-5)


def test_interventions_are_written_and_read() -> None:
    ablations = unit_ablation(Chain(2).eval(), blob_cohort(cases=3), units_of("a", 0), [BOX])
    swaps = region_swap(Reader(), bright_cohort(2), CLASSES)
    record = interventions_record(ablations, swaps)
    assert InterventionsRecord.model_validate_json(record.model_dump_json()) == record
    assert record.ablations[0].drop.interval is None
    assert len(record.swaps) == 2


def test_what_cannot_be_done_is_said_in_a_sentence() -> None:
    network = Chain(2).eval()
    with pytest.raises(ConfigError, match="one concept, one class and one case"):
        unit_ablation(network, blob_cohort(), (), [BOX])
    with pytest.raises(ConfigError, match="at least two classes"):
        region_swap(network, blob_cohort(), [BOX])
    bare = [replace(case, labels=None) for case in noise_cohort(cases=2)]
    with pytest.raises(ConfigError, match="case0: regions are swapped by reference labels"):
        region_swap(network, Cohort.of(bare), CLASSES)
