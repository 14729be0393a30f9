"""Dissection on cases whose concepts are known: planted detectors, nulls and every bad input."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from phantom_cohort import SIDES, Planted, a_case, bank, boxes
from torch import Tensor, nn

from voxplain.concepts.bank import ConceptBank
from voxplain.concepts.concept import Concept
from voxplain.concepts.dissection import (
    Dissection,
    DissectionSettings,
    UnitGroup,
    dissect,
    within_tolerance,
)
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.engine.context import Context
from voxplain.engine.interventions import UnitSet
from voxplain.engine.observation import observe
from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError, ModelError
from voxplain.grid import Grid
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.models.windows import Window
from voxplain.records.dissection import (
    DissectionRecord,
    read_dissections,
    write_dissection,
)

WHOLE = DissectionSettings(region="image", draws=50)


def planted(rank: int = 2, **changes: object) -> Dissection:
    return dissect(Planted(rank).eval(), boxes(rank=rank), bank(), settings=WHOLE)


@pytest.mark.parametrize("rank", [2, 3])
def test_a_planted_detector_is_found_and_nothing_else_is(rank: int) -> None:
    found = planted(rank)
    (pair,) = found.of(unit="act/0", concept="both")
    assert pair.iou == pytest.approx(1)
    assert pair.average_precision == pytest.approx(1)
    assert pair.auc == pytest.approx(1)
    assert pair.interval == pytest.approx((1, 1))
    assert pair.detector
    assert found.best("both") == pair
    intensity = max(each.iou or 0 for each in found.of(concept="both", origin="input"))
    assert pair.bar is not None
    assert pair.bar >= max(0.04, intensity)
    assert 0.1 < intensity < 0.9
    # The first channel is a unit that sees no more than the image itself shows.
    (copy,) = found.of(unit="act/2", concept="first")
    assert copy.iou == pytest.approx(1)
    assert copy.detector is False
    assert [(each.unit, each.concept) for each in found.detectors] == [("act/0", "both")]


def test_a_dead_unit_has_no_scores_and_says_so() -> None:
    found = planted()
    remarks = {each.name: each.remark for each in found.record.units}
    assert remarks["act/1"] == "it is constant (0) on all selection cases"
    assert remarks["act/0"] == ""
    for pair in found.of(unit="act/1"):
        assert (pair.iou, pair.average_precision, pair.threshold, pair.p) == (None,) * 4


@pytest.mark.parametrize("rule", ["max_iou", "max_information", "fixed_quantile"])
def test_no_iou_exceeds_what_its_threshold_allows(rule: str) -> None:
    settings = WHOLE.model_copy(update={"threshold": rule, "quantile": 0.1})
    found = dissect(noisy(2), noise(12), bank(), settings=settings)
    shares = {each.name: each.share for each in found.record.concepts}
    checked = [pair for pair in found.record.pairs if pair.iou is not None]
    assert len(checked) > 10
    for pair in checked:
        q, p = pair.on, shares[pair.concept]
        assert q is not None
        assert p is not None
        assert pair.iou is not None
        assert pair.iou <= min(p, q) / max(p, q) + 1e-9
        if rule == "fixed_quantile":
            assert q == pytest.approx(0.1, abs=0.03)


class Noisy(nn.Module):
    """Random weights: a stride, another convolution, a head."""

    def __init__(self, rank: int, flat: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        convolution = (nn.Conv2d, nn.Conv3d)[rank - 2]
        sides = (3, 3, 1 if flat else 3)[:rank]
        halves = (2, 2, 1 if flat else 2)[:rank]
        pad = (1, 1, 0 if flat else 1)[:rank]
        self.first = convolution(2, 6, sides, padding=pad)
        self.relu1 = nn.ReLU()
        self.second = convolution(6, 8, sides, stride=halves, padding=pad)
        self.relu2 = nn.ReLU()
        self.head = convolution(8, 3, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                drawn = torch.randn(parameter.numel(), generator=generator)
                parameter.copy_(drawn.view(parameter.shape) / parameter[0].numel() ** 0.5)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.relu2(self.second(self.relu1(self.first(image)))))


def noisy(rank: int, flat: bool = False) -> Noisy:
    return Noisy(rank, flat).eval()


def noise(count: int, rank: int = 2, flat: bool = False, far: int = 0) -> Cohort:
    """Boxes with noise; ``far`` moves the labels out of what units can see."""

    def one(number: int) -> CohortCase:
        case = a_case(number, SIDES[:2])
        generator = torch.Generator().manual_seed(number)
        drawn = torch.randn(case.image.data.shape, generator=generator)
        data, labels = case.image.data + 0.5 * drawn, case.labels
        assert labels is not None
        labels = torch.roll(labels, far, dims=0)
        if flat:
            data, labels = data[..., None], labels[..., None]
        return replace(case, image=Image(data, Grid.default(data.shape[1:], 2.0)), labels=labels)

    return Cohort.of([one(number) for number in range(count)])


def test_with_random_weights_no_unit_is_a_detector() -> None:
    found = dissect(noisy(2), noise(24, far=10), bank(), settings=WHOLE)
    assert found.record.patients == 12
    assert not found.detectors
    assert {pair.detector for pair in found.of(origin="layer") if pair.iou is not None} == {False}


def test_units_of_a_random_network_raise_the_bar() -> None:
    network = Planted().eval()
    found = dissect(network, boxes(), bank(), settings=WHOLE, random_model=Planted().eval())
    assert {pair.origin for pair in found.record.pairs} == {"layer", "input", "random"}
    assert not found.detectors  # the random network detects as well as the network


def test_a_slice_and_a_volume_of_one_slice_give_the_same() -> None:
    flat = dissect(noisy(2), noise(10), bank(), settings=WHOLE).record.pairs
    thick = dissect(noisy(3, True), noise(10, flat=True), bank(), settings=WHOLE).record.pairs
    for one, other in zip(flat, thick, strict=True):
        for name in ("iou", "average_precision", "auc", "information", "null", "case_median"):
            expected, value = getattr(one, name), getattr(other, name)
            assert (expected is None) == (value is None)
            assert expected is None or value == pytest.approx(expected, abs=1e-5)


def test_histograms_give_the_iou_of_masks_at_every_threshold() -> None:
    cohort, network = noise(4), noisy(2)
    selection, scored = cohort.split()
    found = dissect(network, selection, bank(), settings=WHOLE, held_out=scored)
    group = UnitGroup("layer", "relu2")
    edges, curve = found.values[group].edges, found.curves[group, "first"]
    maps = [
        observe(Context.open(network, case.image), (Tap("relu2"),)).on_image(Tap("relu2"))
        for case in scored
    ]
    values = torch.cat([each.flatten(1) for each in maps], dim=1).double().numpy()
    truth = torch.cat([bank()["first"].of(case).flatten() for case in scored]).numpy()
    for threshold in range(0, edges.shape[1], 5):
        is_on = values >= edges[:, threshold, None]
        union = (is_on | truth).sum(1)
        direct = (is_on & truth).sum(1) / union
        assert curve.iou[:, threshold] == pytest.approx(direct, abs=1e-6)


def test_cases_are_read_in_any_order_with_the_same_result() -> None:
    cohort = noise(12)
    backward = Cohort.of([cohort[name] for name in reversed(cohort.ids)])
    settings = WHOLE.model_copy(update={"exemplars": 2})
    halves = [cohort.only(cohort.ids[:6]), cohort.only(cohort.ids[6:])]
    other = [backward.only(half.ids) for half in halves]
    one = dissect(noisy(2), halves[0], bank(), settings=settings, held_out=halves[1])
    two = dissect(noisy(2), other[0], bank(), settings=settings, held_out=other[1])
    for first, second in zip(one.record.pairs, two.record.pairs, strict=True):
        assert first.iou == pytest.approx(second.iou)
        assert first.null == pytest.approx(second.null)


class Striding(nn.Module):
    """Four padded convolutions of stride 2 that pass the middle on: cell i lies at voxel 16 i."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        convolution = (nn.Conv2d, nn.Conv3d)[rank - 2]
        self.parts = nn.Sequential(*[convolution(1, 1, 3, 2, 1, bias=False) for _ in range(4)])
        self.pool = (nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[rank - 2](1)
        with torch.no_grad():
            for part in self.parts:
                part.weight.zero_()
                part.weight[(0, 0, *(1,) * rank)] = 1

    def forward(self, image: Tensor) -> Tensor:
        return self.pool(self.parts(image)).flatten(1)


def markers(rank: int, shift: int, count: int = 4) -> Cohort:
    """A bright voxel at a multiple of 16; the concept is around it, or around a place beside it."""
    shape = (80, 64, 48)[:rank]

    def one(number: int) -> CohortCase:
        place = [16 * (1 + (number + axis) % (size // 16 - 2)) for axis, size in enumerate(shape)]
        image = torch.zeros(1, *shape)
        image[(0, *place)] = 1
        slopes = torch.ones(shape)
        for axis, (at, size) in enumerate(zip(place, shape, strict=True)):
            slope = (1 - (torch.arange(size) - at - shift).abs() / 16).clamp(min=0)
            slopes = slopes * slope.view([-1 if each == axis else 1 for each in range(rank)])
        labels = (slopes >= 0.4).long()
        return CohortCase(str(number), str(number), Image(image, Grid.default(shape, 1.0)), labels)

    return Cohort.of([one(number) for number in range(count)])


@pytest.mark.parametrize("rank", [2, 3])
def test_units_of_stride_16_lie_at_the_marker(rank: int) -> None:
    concept = [{"kind": "labels", "names": {"marker": 1}}]
    network = Striding(rank).eval()
    at = dissect(network, markers(rank, 0), concept, ["parts.3"], WHOLE).best("marker")
    beside = dissect(network, markers(rank, 8), concept, ["parts.3"], WHOLE).best("marker")
    assert at is not None
    assert at.iou is not None
    assert at.iou > 0.97
    assert beside is not None
    assert beside.iou is not None
    assert beside.iou < 0.7


def test_windows_give_the_same_where_units_see_one_voxel() -> None:
    whole = planted()
    network = Model(Planted().eval(), window=Window(size=(12, 10), overlap=0.5))
    found = dissect(network, boxes(), bank(), settings=WHOLE)
    for one, other in zip(whole.of(origin="layer"), found.of(origin="layer"), strict=True):
        assert one.iou == pytest.approx(other.iou, abs=0.02)  # values differ by rounding


def test_directions_are_units_too() -> None:
    directions = torch.tensor([[1.0, 0, 0], [0, 0, 1.0], [1.0, 0, 1.0]])
    units = {"act": UnitSet(directions=directions)}
    found = dissect(Planted().eval(), boxes(), bank(), settings=WHOLE, units=units)
    (pair,) = found.of(unit="act/direction 0", concept="both")
    assert pair.iou == pytest.approx(1)
    chosen = dissect(
        Planted().eval(), boxes(), bank(), settings=WHOLE, units={"act": UnitSet((2,))}
    )
    assert [each.name for each in chosen.record.units if each.origin == "layer"] == ["act/2"]


def test_nothing_changes_the_network_and_it_needs_no_gradients() -> None:
    network = Planted().eval().requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        dissect(network, boxes(4), bank(), settings=WHOLE)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.act._forward_hooks


def test_few_patients_have_no_interval_and_one_is_scored_on_itself() -> None:
    few = dissect(Planted().eval(), boxes(6), bank(), settings=WHOLE)
    assert all(pair.interval is None and pair.detector is None for pair in few.record.pairs)
    assert any("3 held-out patients, and intervals need 8" in each for each in few.record.remarks)
    one = dissect(Planted().eval(), boxes(1), bank(), settings=WHOLE)
    assert any("one patient only" in each for each in one.record.remarks)
    best = one.best("both")
    assert best is not None
    assert best.iou == pytest.approx(1)


def test_concepts_that_are_nowhere_leave_the_others_alone() -> None:
    def failing(case: CohortCase) -> Tensor | None:
        raise ConfigError("the file is missing")

    def wrong(case: CohortCase) -> Tensor | None:
        return torch.ones(2, 2, dtype=torch.bool)

    concepts = ConceptBank.of(
        [
            *bank(),
            *ConceptBank.of([{"kind": "labels", "names": {"absent": 9}}]),
            Concept("unknown", "mask", "derived", "nowhere", lambda case: None),
            Concept("failing", "mask", "derived", "a file", failing),
            Concept("wrong", "mask", "derived", "elsewhere", wrong),
            Concept("all", "mask", "derived", "all", lambda case: case.image.data[0] > -1),
        ]
    )
    found = dissect(Planted().eval(), boxes(), concepts, settings=WHOLE)
    remarks = {each.name: each.remark for each in found.record.concepts}
    assert remarks["both"] == ""
    assert remarks["absent"] == "it is absent from all held-out cases"
    assert remarks["unknown"] == "it is not known for any held-out case"
    assert remarks["all"] == "it fills the whole region of interest"
    said = " ".join(found.record.remarks)
    assert "concept 'failing' is not known for some cases: the file is missing" in said
    assert "has the shape (2, 2)" in said
    for name in ("absent", "unknown", "failing", "wrong", "all"):
        assert {pair.iou for pair in found.of(concept=name)} == {None}
        assert found.best(name) is None
    assert [each.concept for each in found.detectors] == ["both"]


def test_a_layer_without_places_is_left_out_and_the_others_go_on() -> None:
    found = dissect(Striding(2).eval(), markers(2, 0), bank_of_marker(), ["parts.3", "pool"], WHOLE)
    assert {each.layer for each in found.record.units} == {"parts.3", ""}
    assert any("'pool' has no places in the image" in each for each in found.record.remarks)


def bank_of_marker() -> ConceptBank:
    return ConceptBank.of([{"kind": "labels", "names": {"marker": 1}}])


def test_mistakes_are_refused_in_a_sentence() -> None:
    network = Planted().eval()
    with pytest.raises(ModelError, match="no layer 'atc'"):
        dissect(network, boxes(4), bank(), ["atc"], WHOLE)
    with pytest.raises(ConfigError, match="no concept 'brain'"):
        dissect(network, boxes(4), bank(), settings=DissectionSettings(region="brain"))
    with pytest.raises(ConfigError, match="holds no concept"):
        dissect(network, boxes(4), [], settings=WHOLE)
    with pytest.raises(ConfigError, match="did you mean first"):
        planted().best("frist")


def test_facts_of_whole_images_are_told_by_the_mean_or_the_maximum() -> None:
    def one(number: int) -> CohortCase:
        case = a_case(number, SIDES[:2], scanner="A" if number % 2 else "B")
        data = case.image.data * (1.0 if number % 2 else 0.5)
        return replace(case, image=replace(case.image, data=data))

    concepts = bank({"kind": "fact", "fact": "scanner", "values": ["A"]})
    found = dissect(
        Planted().eval(),
        Cohort.of([one(number) for number in range(24)]),
        concepts,
        settings=WHOLE,
    )
    (pair,) = [each for each in found.record.images if each.unit == "act/2"]
    assert (pair.auc, pair.average_precision, pair.selection_auc) == pytest.approx((1, 1, 1))
    assert pair.pooling == "max"
    assert pair.p_adjusted is not None
    assert pair.p_adjusted < 0.01
    (dead,) = [each for each in found.record.images if each.unit == "act/1"]
    assert (dead.auc, dead.p) == (None, None)


def test_exemplars_are_the_cases_where_a_unit_is_most_active() -> None:
    scales = [3.0, 1.0, 2.0, 5.0, 4.0, 0.5]
    cases = []
    for number, scale in enumerate(scales):
        case = a_case(number, SIDES[:2])
        cases.append(replace(case, image=replace(case.image, data=case.image.data * scale)))
    settings = WHOLE.model_copy(update={"exemplars": 2})
    found = dissect(Planted().eval(), Cohort.of(cases), bank(), settings=settings)
    (unit,) = [each for each in found.record.units if each.name == "act/2"]
    assert [each.case for each in unit.top] == ["case3", "case4"]
    assert [each.value for each in unit.top] == [5, 4]
    assert [each.case for each in unit.bottom] == ["case5", "case1"]
    assert cases[3].image.data[(0, *unit.top[0].voxel)] == 5


def test_a_record_is_read_back_from_its_file(tmp_path: Path) -> None:
    found = planted()
    write_dissection(tmp_path, found.record)
    assert read_dissections(tmp_path) == [found.record]
    assert DissectionRecord.model_validate_json(found.to_json()) == found.record
    for name in ("units.parquet", "units.csv"):
        found.export(tmp_path / name)
    from pyarrow import parquet

    table = parquet.read_table(tmp_path / "units.parquet").to_pylist()
    assert len(table) == len(found.record.pairs) == len(found.to_records())
    assert table[0]["iou"] == found.record.pairs[0].iou
    assert (tmp_path / "units.csv").read_text().startswith("unit,origin,concept,threshold")


def test_a_border_beside_a_unit_is_met_within_a_tolerance() -> None:
    cohort, concepts = boxes(20), bank({"kind": "boundary", "of": "both", "width": 1})
    found = dissect(Planted().eval(), cohort, concepts, settings=WHOLE)
    scores = {
        tolerance: {
            each.concept: each
            for each in within_tolerance(Planted().eval(), cohort, concepts, found, tolerance)
        }
        for tolerance in (0, "2mm", "8mm")
    }
    plain = found.best("both boundary")
    assert plain is not None
    exact = scores[0]["both boundary"]
    assert (exact.precision, exact.recall) == pytest.approx((plain.precision, plain.recall))
    f1 = [scores[tolerance]["both boundary"].f1 or 0 for tolerance in (0, "2mm", "8mm")]
    assert f1[0] < f1[1] <= f1[2]
    assert scores["8mm"]["both"].f1 == 1
    assert scores["8mm"]["both"].recall_interval == pytest.approx((1, 1))


def test_no_warning_is_raised_by_undefined_numbers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        planted()
    assert np.isfinite([pair.iou for pair in planted().of(unit="act/0")]).all()
