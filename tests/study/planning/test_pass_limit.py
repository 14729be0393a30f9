"""Passes are counted before anything starts, and cheaper settings are proposed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import TinyStudy
from torch import nn

from voxplain.attribution import estimate
from voxplain.attribution.describe.card import method_card
from voxplain.attribution.describe.cost import cheaper_settings
from voxplain.attribution.methods import methods
from voxplain.engine.method import parse_method
from voxplain.errors import ConfigError
from voxplain.study import Study, check_study
from voxplain.study.config.run import MAX_PASSES

NETWORK = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
IMAGE = torch.rand(1, 1, 48, 48)
NETWORK(IMAGE)


@pytest.mark.parametrize(
    ("written", "limit", "first"),
    [
        ({"name": "integrated_gradients", "steps": 50}, 20, "steps=20"),
        ({"name": "smoothgrad", "of": "saliency", "samples": 30}, 7, "samples=7"),
        (
            {"name": "smoothgrad", "of": {"name": "integrated_gradients", "steps": 32}},
            100,
            "of.steps=12",
        ),
        ({"name": "feature_ablation", "regions": {"kind": "supervoxels", "count": 300}}, 80,
         "regions.count=80"),
        ({"name": "occlusion", "window": 2}, 150, "window=8"),
        ({"name": "rise"}, 1000, "samples=512"),
        ({"name": "rise", "samples": 123456}, 20000, "samples=20000"),
    ],
)  # fmt: skip
def test_each_setting_alone_is_enough(written: dict[str, Any], limit: int, first: str) -> None:
    method = parse_method(written)
    before = sum(stream.passes for stream in estimate([method], IMAGE, NETWORK))
    assert before > limit
    settings = cheaper_settings(method, IMAGE, NETWORK, limit)
    assert first in settings
    for setting in settings:
        changed = parse_method(_with(method.model_dump(by_alias=True), setting))
        assert sum(stream.passes for stream in estimate([changed], IMAGE, NETWORK)) <= limit


def test_what_cannot_be_brought_down_has_no_advice() -> None:
    method = parse_method({"name": "guided_grad_cam"})
    assert cheaper_settings(method, IMAGE, NETWORK, 1) == []


def test_the_default_lets_every_method_run_with_its_defaults() -> None:
    for name in methods:
        for cost in method_card(methods.get(name)).costs:
            assert cost.passes + cost.forwards <= MAX_PASSES, name


def test_each_method_counts_for_itself_and_shared_streams_for_each(tiny: TinyStudy) -> None:
    steps = {"name": "integrated_gradients", "steps": 30}
    internal = {"name": "internal_influence", "steps": 30}
    limit = {"max_passes": 30}
    both = Study.load(tiny.write(methods=[steps, internal, "saliency"], run=limit))
    assert [task.passes for task in check_study(both).plan.tasks][:2] == [30, 1]
    more = Study.load(tiny.write(methods=["saliency", {**steps, "steps": 31}], run=limit))
    with pytest.raises(ConfigError, match=r"integrated_gradients takes about 31 passes .*steps=30"):
        check_study(more)


def test_the_limit_does_not_make_results_new(tiny: TinyStudy) -> None:
    study = Study.load(tiny.file)
    tasks = check_study(study).plan.tasks
    assert [task.key for task in check_study(study.running(max_passes=50)).plan.tasks] == [
        task.key for task in tasks
    ]
    assert study.running(max_passes=None) is study
    assert study.running(max_passes=50).base == study.base


def test_forwards_are_counted_apart(tiny: TinyStudy) -> None:
    boxes = {"name": "occlusion", "window": 5, "stride": 5}
    plan = check_study(Study.load(tiny.write(methods=["saliency", boxes]))).plan
    assert [(task.passes, task.forwards) for task in plan.tasks[:2]] == [(1, 0), (18, 18)]


def _with(written: dict[str, Any], setting: str) -> dict[str, Any]:
    path, _, value = setting.partition("=")
    inner: Any = written
    *parents, last = path.split(".")
    for parent in parents:
        inner = inner[parent]
    inner[last] = float(value) if "." in value else int(value)
    return written
