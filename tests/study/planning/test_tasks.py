"""Keys of tasks: what makes a resumed run compute a map again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import voxplain as vx
from voxplain.attribution.describe.cost import StreamEstimate
from voxplain.attribution.methods.saliency import Saliency
from voxplain.engine.context import Context
from voxplain.image import Grid, Image
from voxplain.metrics import parse_metric
from voxplain.study.config.randomization import RandomizationConfig
from voxplain.study.planning.evaluation_task import EvaluationTask, plan_evaluation
from voxplain.study.planning.images import content_sha256
from voxplain.study.planning.tasks import Combination, Task
from voxplain.targets import Label


@pytest.mark.parametrize("name", ["saliency", "smoothgrad"])
def test_a_revised_method_is_computed_again_also_inside_another(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Label(label=1)
    combination = Combination("a", "net", target, target, {}, seed=0)
    spec = {"name": name, "of": "saliency"} if name == "smoothgrad" else name
    method, other = vx.methods.parse(spec), vx.methods.parse("input_x_gradient")
    before = combination.method_key(method), combination.method_key(other)
    monkeypatch.setattr(Saliency, "revision", 2)
    assert combination.method_key(method) != before[0]
    assert combination.method_key(other) == before[1]


def test_random_draws_depend_on_case_target_and_seed_but_not_on_methods() -> None:
    one, two = Label(label=1), Label(label=2)
    combinations = [
        Combination(case, "net", target, target, facts, seed)
        for case in ("a", "b")
        for target in (one, two)
        for facts in ({"image": "0"}, {"image": "1"})
        for seed in (0, 1)
    ]
    assert len({combination.draw_seed for combination in combinations}) == 16


def test_random_draws_do_not_depend_on_the_version_of_results() -> None:
    target = Label(label=1)
    assert Combination("a", "net", target, target, {}, seed=0).draw_seed == 2322317931


def test_a_map_is_another_one_if_anything_that_decides_it_is() -> None:
    """Its patient, and what its files are called, decide nothing."""
    one, two = Label(label=1), Label(label=2)
    saliency = vx.methods.parse("saliency")
    same = {"case": "a", "model": "net", "target": one, "named": one, "facts": {"image": "0"}}
    same |= {"seed": 0, "network": {"name": "net", "fingerprint": "0"}}
    changes = [
        {},
        {"case": "b"},
        {"named": two},
        {"facts": {"image": "1"}},
        {"facts": {"image": "0", "files": ["1"]}},
        {"seed": 1},
        {"network": {"name": "net", "fingerprint": "1"}},
        {"network": {"name": "other", "fingerprint": "0"}},
    ]
    keys = [Combination(**same | change).method_key(saliency) for change in changes]  # type: ignore[arg-type]
    assert len(set(keys)) == len(keys)
    assert Combination(**same, patient="p").method_key(saliency) == keys[0]  # type: ignore[arg-type]
    assert Combination(**same | {"target": two}).method_key(saliency) == keys[0]  # type: ignore[arg-type]


def test_a_task_sums_up_its_streams() -> None:
    target = Label(label=1)
    combination = Combination("a", "net", target, target, {}, seed=0)
    methods = [vx.methods.parse(name) for name in ("saliency", "occlusion", "rise")]
    streams = [
        StreamEstimate("gradient", 3, ("saliency",)),
        StreamEstimate("boxes", 50, ("occlusion",), forwards_only=True),
        StreamEstimate("grids", 700, ("rise",), forwards_only=True),
    ]
    task = Task.of(combination, methods, streams)
    assert (task.passes, task.forwards) == (753, 750)
    assert task.streams == ("gradient", "boxes", "grids")
    assert task.labels == ["saliency", "occlusion", "rise"]
    done = [combination.method_key(method) for method in methods[:2]]
    assert task.without(done).labels == ["rise"]
    assert Task.of(combination, methods[::-1], streams).key == task.key


@pytest.mark.parametrize("change", ["metrics", "cascade", "controls", "facts", "methods", "seed"])
def test_an_evaluation_is_another_one_if_anything_that_decides_it_is(change: str) -> None:
    one, target = vx.methods.parse("saliency"), Label(label=1)
    image = Image.from_array(torch.rand(1, 6, 7))
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def evaluation(changed: str = "") -> EvaluationTask:
        combination = Combination("a", "net", target, target, {}, seed=int(changed == "seed"))
        methods = [one, *([vx.methods.parse("input_x_gradient")] if changed == "methods" else [])]
        return plan_evaluation(
            combination,
            [Task.of(combination, methods, [])],
            [parse_metric({"name": "deletion", "levels": 3 + (changed == "metrics")})],
            RandomizationConfig(steps=1 + (changed == "cascade"), seeds=1),
            changed != "controls",
            {"mask": "1" if changed == "facts" else None, "networks": []},
            Context.open(network, image),
            1000,
        )

    assert evaluation(change).key != evaluation().key == evaluation().key
    if change in ("facts", "seed", "metrics"):
        keys = [
            task.row_key(task.metrics[0], "saliency", {"saliency": "0"})
            for task in (evaluation(), evaluation(change))
        ]
        assert keys[0] != keys[1]


def test_scores_of_other_maps_are_others() -> None:
    target = Label(label=1)
    combination = Combination("a", "net", target, target, {}, seed=0)
    metrics = (parse_metric("sparseness"), parse_metric("method_agreement"))
    task = EvaluationTask("key", combination, metrics, None, True, {})
    maps, changed = {"m": "0", "n": "1"}, {"m": "0", "n": "2"}
    alone, agreement = metrics
    assert task.row_key(alone, "m", maps) == task.row_key(alone, "m", changed)
    assert task.row_key(alone, "n", maps) != task.row_key(alone, "n", changed)
    assert task.row_key(alone, "random", maps) != task.row_key(alone, "edges", maps)
    assert task.row_key(agreement, "m", maps) != task.row_key(agreement, "m", changed)
    assert task.scores_key(maps) != task.scores_key(changed)


@pytest.mark.parametrize("change", ["values", "shape", "place", "unit", "order"])
def test_the_hash_of_an_image_is_of_its_values_and_its_place(change: str) -> None:
    values = torch.arange(60.0).reshape(1, 3, 4, 5)
    affine = np.diag([2.0, 1.0, 3.0, 1.0])
    same = content_sha256(Image(values, Grid((3, 4, 5), affine)))
    moved = affine.copy()
    moved[1, 3] = 0.5
    others = {
        "values": Image(values + (values == 7), Grid((3, 4, 5), affine)),
        "shape": Image(values.reshape(1, 4, 3, 5), Grid((4, 3, 5), affine)),
        "place": Image(values, Grid((3, 4, 5), moved)),
        "unit": Image(values, Grid((3, 4, 5), affine, unit="pixel")),
        "order": Image(values.flip(3), Grid((3, 4, 5), affine)),
    }
    assert content_sha256(others[change]) != same
    assert content_sha256(Image(values.clone(), Grid((3, 4, 5), affine), ("t1",))) == same
