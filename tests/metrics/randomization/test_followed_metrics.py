"""Metrics along a cascade: at every step what they say of that network and its map by hand."""

from __future__ import annotations

import pytest
import torch
from every_metric import DIM, METHODS, NAMES, SCORE, SEGMENT, certain, lesion, short
from metric_cases import metric_context
from networks import images, segmenter
from torch import nn

from voxplain.attribution import explain
from voxplain.errors import ConfigError
from voxplain.metrics import BaseMetric, Case, evaluate, metric_key, metrics, parse_metric
from voxplain.metrics.randomization import Cascade, reinitialize, stages
from voxplain.models.copies import copied
from voxplain.models.model import Model
from voxplain.records.scores import Scores
from voxplain.study import Study


def followed() -> tuple[BaseMetric, ...]:
    """Every metric that a study may ask of every step."""
    found = []
    for name in NAMES:
        study = {
            "cases": [{"image": "scan.nii.gz"}],
            "models": [{"name": "net", "factory": "nets:build"}],
            "target": 1,
            "methods": ["saliency"],
            "randomization": {"metrics": [short(name)]},
        }
        try:
            Study.parse(study)
        except ConfigError:
            continue
        found.append(parse_metric(short(name)))
    return tuple(found)


FOLLOWED = followed()


def test_all_that_ask_one_network_about_one_map_can_follow() -> None:
    left_out = set(NAMES) - {metric.name for metric in FOLLOWED}
    families = {metrics.get(name).family for name in left_out}
    assert families == {"randomization", "agreement", "calibration", "faithfulness"}
    asked = {name for name in left_out if metrics.get(name).family == "faithfulness"}
    assert asked == {"consistency", "sufficiency", "completeness_residual"}


def by_hand(network: nn.Module | Model, rank: int) -> Scores:
    """All of them on the maps of one network."""
    shown, others = images(rank).double(), images(rank, 1, 12).double()[8:]
    maps = explain(network, shown, list(METHODS), SCORE)
    others = torch.cat([others, DIM * others])
    cases = [Case(mask=lesion(rank))]
    return evaluate(network, shown, maps, FOLLOWED, SCORE, cases=cases, references=others)


@pytest.mark.parametrize("rank", [2, 3])
def test_each_network_is_asked_about_its_own_map(rank: int) -> None:
    network, shown = certain(rank).double(), images(rank).double()
    others = images(rank, 1, 12).double()[8:]
    maps = {name: found[0] for name, found in explain(network, shown, list(METHODS), SCORE).items()}
    given = {"mask": lesion(rank), "references": torch.cat([others, DIM * others])}
    context = metric_context(network, shown[0], maps, SCORE, **given)
    query = Cascade(steps=1, seeds=1, metrics=FOLLOWED)
    found = query.run(context)
    random = copied(Model(network))
    reinitialize(random.network, stages(random, shown), 0)
    assert list(found) == [*METHODS, "edges"]
    known = [row for row in by_hand(network, rank) if not row.reason and not row.control]
    assert len(known) > 0.8 * len(METHODS) * len(FOLLOWED)
    for step, expected in enumerate((by_hand(network, rank), by_hand(random, rank))):
        for name, steps in found.items():
            for metric in FOLLOWED:
                score = expected.value(metric.name, name)
                along = steps.scores[metric_key(metric)][0][step]
                assert along == pytest.approx(score, rel=1e-6, abs=1e-9, nan_ok=True), (
                    metric.name,
                    name,
                    step,
                )


def test_objects_are_those_that_each_network_sees_and_the_target_stays() -> None:
    """A segmenter that sees another object where it forgot; the voxels it is asked about stay."""
    network, shown = segmenter().double(), images().double()
    maps = {
        name: found[0] for name, found in explain(network, shown, list(METHODS), SEGMENT).items()
    }
    context = metric_context(network, shown[0], maps, SEGMENT, mask=lesion(2))
    names = ("context_share", "boundary_share", "dice_drop", "volume_change", "morf_lerf_gap")
    chosen = tuple(parse_metric(short(name)) for name in names)
    found = Cascade(seeds=2, metrics=chosen).run(context)
    trained = evaluate(
        network, shown, explain(network, shown, list(METHODS), SEGMENT), chosen, SEGMENT
    )
    for name, steps in found.items():
        for metric in chosen:
            rows = steps.scores[metric_key(metric)]
            assert [row[0] for row in rows] == pytest.approx([trained.value(metric.name, name)] * 2)
            assert {len(row) for row in rows} == {len(steps.stages)}
    assert len(set(found["edges"].scores[metric_key(chosen[0])][0])) > 1
