"""Directions of concepts, against directions that were planted."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from planted import (
    Pointwise,
    Strided,
    backwards,
    bright_along,
    label_concept,
    noise_cohort,
    one_slice,
)

from voxplain.concepts.concept import Concept
from voxplain.concepts.directions.concept_direction import (
    ConceptDirection,
    UnitCountRecord,
    concept_direction,
)
from voxplain.concepts.directions.directions import Directions
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.engine.context import Context
from voxplain.engine.observation import observe
from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError, InputError

WEIGHTS = torch.tensor([2.0, -1.0, 0.5, 0.0])
NETWORK = Pointwise(torch.ones(2, 4))


def cohort(count: int = 16, shape: tuple[int, ...] = (16, 16)) -> Cohort:
    return noise_cohort(count, 4, shape, bright_along(WEIGHTS))


def measured(cases: Cohort, network: torch.nn.Module = NETWORK) -> ConceptDirection:
    return concept_direction(network, cases, label_concept(), "layer", counts=(1, 2))


@pytest.fixture(scope="module")
def found() -> ConceptDirection:
    return measured(cohort())


def test_a_planted_direction_is_recovered(found: ConceptDirection) -> None:
    assert float(found.directions.vectors[0] @ WEIGHTS / WEIGHTS.norm()) > 0.99
    assert found.all_units.iou > 0.9
    assert found.all_units.interval is not None
    assert found.all_units.interval[0] > 0.85


def test_more_units_hold_more_of_it(found: ConceptDirection) -> None:
    curve = found.record.curve
    assert [each.units for each in curve] == [1, 2, 4]
    assert [each.channels for each in curve] == [(0,), (0, 1), (0, 1, 2, 3)]
    assert curve[0].iou < curve[1].iou < curve[2].iou


def test_at_random_places_there_is_no_direction(found: ConceptDirection) -> None:
    chance = label_share(cohort())
    for each in found.record.controls["random labels"]:
        assert each.iou < 2 * chance


def label_share(cases: Cohort) -> float:
    shares = [case.labels.float().mean() for case in cases if case.labels is not None]
    return float(torch.stack(shares).mean())


def test_the_iou_is_that_of_the_thresholded_reading(found: ConceptDirection) -> None:
    both = either = 0
    for case in cohort().only(found.record.held_out):
        seen = observe(Context.open(NETWORK, case.image), (Tap("layer"),))
        reading = seen.layers.on_image(Tap("layer"), found.directions.encode(seen[Tap("layer")]))
        mask = reading[0] >= found.threshold
        assert case.labels is not None
        own = int((mask & (case.labels == 1)).sum()), int((mask | (case.labels == 1)).sum())
        assert math.isclose(found.all_units.by_case[case.id], own[0] / own[1])
        both, either = both + own[0], either + own[1]
    assert math.isclose(found.all_units.iou, both / either)


def test_a_random_network_is_a_control() -> None:
    torch.manual_seed(0)
    other = Pointwise(torch.ones(2, 4))
    other.layer.weight.data.zero_()
    record = concept_direction(
        NETWORK, cohort(), label_concept(), "layer", counts=(), random_network=other
    ).record
    assert record.controls["random network"][-1].iou < 2 * label_share(cohort())


def same(first: tuple[UnitCountRecord, ...], second: tuple[UnitCountRecord, ...]) -> None:
    for one, other in zip(first, second, strict=True):
        assert one.channels == other.channels
        assert one.iou == pytest.approx(other.iou, abs=1e-3)
        assert one.threshold == pytest.approx(other.threshold, abs=1e-3)


def test_the_order_of_cases_changes_nothing(found: ConceptDirection) -> None:
    selection, scored = (
        cohort().only(ids) for ids in (found.record.selection, found.record.held_out)
    )
    again = concept_direction(
        NETWORK, backwards(selection), label_concept(), "layer", counts=(1, 2),
        held_out=backwards(scored),
    )  # fmt: skip
    same(found.record.curve, again.record.curve)
    assert torch.allclose(found.directions.vectors, again.directions.vectors, atol=1e-4)


def test_a_volume_of_one_slice_is_the_image() -> None:
    flat = measured(cohort(4))
    deep = measured(one_slice(cohort(4)), Pointwise(torch.ones(2, 4), 3))
    same(flat.record.curve, deep.record.curve)
    assert len(flat.record.remarks) == 1


def test_a_concept_of_whole_images_is_scored_image_by_image() -> None:
    cases = []
    for number, case in enumerate(cohort(80, (6, 6))):
        data = case.image.data.clone()
        data[1] += 2.0 * (number % 2)
        image = replace(case.image, data=data)
        cases.append(CohortCase(case.id, case.patient, image, facts={"has": number % 2}))
    has = Concept(
        "has", "image", "explicit", "facts", lambda case: torch.tensor(bool(case.facts["has"]))
    )
    found = concept_direction(NETWORK, Cohort.of(cases), has, "layer", counts=(), ridge=1.0)
    assert found.record.curve[0].channels == (1,)
    assert found.record.curve[0].iou == found.all_units.iou == 1.0


def test_a_layer_without_places_is_scored_image_by_image() -> None:
    torch.manual_seed(0)
    cases = [
        replace(case, labels=case.labels * (number % 2)) for number, case in enumerate(cohort())
    ]
    found = concept_direction(
        Strided(channels=4), Cohort.of(cases), label_concept(), "head", counts=()
    )
    assert {*found.all_units.by_case.values()} <= {0.0, 1.0} or math.isnan(
        sum(found.all_units.by_case.values())
    )


def test_it_is_saved_and_the_network_is_as_before(tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in NETWORK.state_dict().items()}
    found = measured(cohort(4))
    loaded = Directions.load(found.directions.save(tmp_path / "planted.safetensors"))
    assert torch.equal(loaded.readout, found.directions.readout)
    assert found.record == type(found.record).model_validate_json(found.record.model_dump_json())
    assert all(torch.equal(value, before[name]) for name, value in NETWORK.state_dict().items())


def test_what_does_not_fit_is_said_in_a_sentence() -> None:
    with pytest.raises(InputError, match="'planted' is nowhere in the region of interest"):
        concept_direction(NETWORK, cohort(4), label_concept(value=5), "layer")
    with pytest.raises(InputError, match="has 1; it takes two at least"):
        measured(cohort(1))
    with pytest.raises(ConfigError, match="start at 1"):
        concept_direction(NETWORK, cohort(4), label_concept(), "layer", counts=(0,))
    with pytest.raises(ConfigError, match="4 patients are among the selection cases and"):
        concept_direction(NETWORK, cohort(4), label_concept(), "layer", held_out=cohort(4))
