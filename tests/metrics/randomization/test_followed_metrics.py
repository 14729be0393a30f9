"""Metrics along a cascade: at every step the scores of that network and its map by hand."""

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
    """Every metric that a study may compute at every step."""
    chosen = []
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
        chosen.append(parse_metric(short(name)))
    return tuple(chosen)


FOLLOWED = followed()


def test_metrics_of_one_map_and_network_can_be_scored_at_every_step() -> None:
    left_out = set(NAMES) - {metric.name for metric in FOLLOWED}
    families = {metrics.get(name).family for name in left_out}
    assert families == {"randomization", "agreement", "calibration", "faithfulness", "localization"}
    faithfulness = {name for name in left_out if metrics.get(name).family == "faithfulness"}
    assert faithfulness == {"consistency", "sufficiency", "completeness_residual"}
    localization = {name for name in left_out if metrics.get(name).family == "localization"}
    assert localization == {"roc_auc_of_means", "dice_at_common_level"}


def by_hand(network: nn.Module | Model, rank: int) -> Scores:
    """Their scores of the maps of one network."""
    image, others = images(rank).double(), images(rank, 1, 12).double()[8:]
    maps = explain(network, image, list(METHODS), SCORE)
    others = torch.cat([others, DIM * others])
    cases = [Case(mask=lesion(rank))]
    return evaluate(network, image, maps, FOLLOWED, SCORE, cases=cases, references=others)


@pytest.mark.parametrize("rank", [2, 3])
def test_each_map_is_scored_with_its_own_network(rank: int) -> None:
    network, image = certain(rank).double(), images(rank).double()
    others = images(rank, 1, 12).double()[8:]
    maps = {
        name: attribution[0]
        for name, attribution in explain(network, image, list(METHODS), SCORE).items()
    }
    options = {"mask": lesion(rank), "references": torch.cat([others, DIM * others])}
    context = metric_context(network, image[0], maps, SCORE, **options)
    query = Cascade(steps=1, seeds=1, metrics=FOLLOWED)
    attribution = query.run(context)
    random = copied(Model(network))
    reinitialize(random.network, stages(random, image), 0)
    assert list(attribution) == [*METHODS, "edges"]
    defined = [row for row in by_hand(network, rank) if not row.reason and not row.control]
    assert len(defined) > 0.8 * len(METHODS) * len(FOLLOWED)
    for step, expected in enumerate((by_hand(network, rank), by_hand(random, rank))):
        for name, steps in attribution.items():
            for metric in FOLLOWED:
                score = expected.value(metric.name, name)
                followed_score = steps.scores[metric_key(metric)][0][step]
                assert followed_score == pytest.approx(score, rel=1e-6, abs=1e-9, nan_ok=True), (
                    metric.name,
                    name,
                    step,
                )


def test_objects_are_those_that_each_network_predicts_and_the_target_stays() -> None:
    """A randomized segmenter predicts another object; the voxels of the target stay."""
    network, image = segmenter().double(), images().double()
    maps = {
        name: attribution[0]
        for name, attribution in explain(network, image, list(METHODS), SEGMENT).items()
    }
    context = metric_context(network, image[0], maps, SEGMENT, mask=lesion(2))
    names = ("context_share", "boundary_share", "dice_drop", "volume_change", "morf_lerf_gap")
    chosen = tuple(parse_metric(short(name)) for name in names)
    attribution = Cascade(seeds=2, metrics=chosen).run(context)
    trained = evaluate(
        network, image, explain(network, image, list(METHODS), SEGMENT), chosen, SEGMENT
    )
    for name, steps in attribution.items():
        for metric in chosen:
            rows = steps.scores[metric_key(metric)]
            assert [row[0] for row in rows] == pytest.approx([trained.value(metric.name, name)] * 2)
            assert {len(row) for row in rows} == {len(steps.stages)}
    assert len(set(attribution["edges"].scores[metric_key(chosen[0])][0])) > 1
