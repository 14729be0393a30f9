"""Directions that were found are dissected like units: mixed detectors, dead ones, random ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from mixed_detectors import ROTATION, SUMS, mixed_cohort, reader, two_concepts
from torch import Tensor, nn

from voxplain.concepts.directions import Directions, sparse_directions
from voxplain.concepts.discovery import discover
from voxplain.concepts.dissection import Dissection, DissectionSettings, dissect
from voxplain.engine.cohort import Cohort
from voxplain.engine.interventions import UnitSet

WHOLE = DissectionSettings(region="image", layers=("layer",))


def everywhere(case: object) -> Tensor:
    return torch.ones(case.image.grid.shape, dtype=torch.bool)  # type: ignore[attr-defined]


def found_by(method: str, network: nn.Module, selection: Cohort, held_out: Cohort) -> Directions:
    """Directions of ``layer``, from the selection cases alone."""
    if method == "nmf":
        return discover(network, selection, "layer", region=everywhere, counts=(2,)).directions
    found = sparse_directions(
        network,
        selection,
        "layer",
        directions=4,
        active=2,
        seeds=2,
        steps=400,
        held_out=held_out,
        region=everywhere,
    )
    return found.directions


def best(found: Dissection, concept: str) -> float:
    pair = found.best(concept)
    return 0.0 if pair is None or pair.iou is None else pair.iou


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize(("method", "mixing"), [("sparse", ROTATION), ("nmf", SUMS)])
def test_directions_tell_concepts_that_every_unit_mixes(
    method: str, mixing: Tensor, rank: int
) -> None:
    cohort = mixed_cohort(mixing, rank)
    selection, held_out = cohort.split(0.5)
    network, bank = reader(len(mixing), rank), two_concepts()
    directions = found_by(method, network, selection, held_out)
    units = dissect(network, selection, bank, settings=WHOLE, held_out=held_out)
    turned = dissect(
        network,
        selection,
        bank,
        settings=WHOLE,
        held_out=held_out,
        units={"layer": directions},
    )
    assert {pair.unit for pair in turned.of(origin="layer")} == {
        f"layer/{name}" for name in directions.names
    }
    for concept in ("first", "second"):
        assert best(units, concept) < 0.8
        assert best(turned, concept) > 0.93
        pair = turned.best(concept)
        assert pair is not None
        assert pair.detector
        assert not any(each.detector for each in units.of(concept=concept))
    names = {turned.best(concept).unit for concept in ("first", "second")}  # type: ignore[union-attr]
    assert len(names) == 2


def test_a_direction_of_one_channel_scores_as_the_channel_does() -> None:
    """However directions are read: as channels, as weights, as saved directions."""
    cohort = mixed_cohort(SUMS, cases=6)
    selection, held_out = cohort.split(0.5)
    network, bank = reader(4, 2), two_concepts()
    axes = torch.eye(4)[[2, 0]]
    readings = (
        UnitSet((2, 0)),
        UnitSet(directions=axes),
        Directions.linear("layer", axes, ("two", "zero")),
    )
    ious = []
    for reading in readings:
        found = dissect(
            network, selection, bank, settings=WHOLE, held_out=held_out, units={"layer": reading}
        )
        pairs = found.of(origin="layer")
        assert [pair.unit for pair in pairs[::2]] == [f"layer/{name}" for name in reading.names]
        ious.append([(pair.iou, pair.threshold, pair.average_precision) for pair in pairs])
    assert np.allclose(ious[0], ious[1], atol=1e-6)
    assert np.allclose(ious[0], ious[2], atol=1e-6)


def test_a_dead_direction_has_no_score() -> None:
    cohort = mixed_cohort(ROTATION)
    selection, held_out = cohort.split(0.5)
    network = reader(2, 2)
    first = Directions.linear("layer", ROTATION.T.contiguous(), ("alive", "dead"))
    offset = torch.tensor([0.0, -100.0])
    directions = dataclasses.replace(first, offset=offset, reading="top_k", active=2)
    found = dissect(
        network,
        selection,
        two_concepts(),
        settings=WHOLE,
        held_out=held_out,
        units={"layer": directions},
    )
    dead = found.of(unit="layer/dead")
    assert len(dead) == 2
    assert all(not pair.iou and not pair.detector for pair in dead)
    (unit,) = (each for each in found.record.units if each.name == "layer/dead")
    assert "constant" in unit.remark
    assert (found.of(unit="layer/alive", concept="first")[0].iou or 0) > 0.97


class Untrained(nn.Module):
    """Two convolutions with random weights; ``layer`` is the rectified second one."""

    def __init__(self, rank: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        convolution = (nn.Conv2d, nn.Conv3d)[rank - 2]
        self.first, self.second = convolution(2, 6, 3, padding=1), convolution(6, 6, 3, padding=1)
        self.layer, self.head = nn.ReLU(), convolution(6, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.layer(self.second(torch.relu(self.first(image)))))


@pytest.mark.parametrize("rank", [2, 3])
def test_no_direction_of_a_random_network_is_a_detector(rank: int) -> None:
    cohort = mixed_cohort(ROTATION, rank)
    selection, held_out = cohort.split(0.5)
    networks = [Untrained(rank, seed).eval() for seed in (1, 2)]
    directions, others = (found_by("sparse", network, selection, held_out) for network in networks)
    found = dissect(
        networks[0],
        selection,
        two_concepts(),
        settings=WHOLE,
        held_out=held_out,
        units={"layer": directions},
        random_model=networks[1],
        random_units={"layer": others},
    )
    assert found.of(origin="random")
    assert found.detectors == ()
