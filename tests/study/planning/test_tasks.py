"""Keys of tasks: what makes a resumed run compute a map again."""

from __future__ import annotations

import pytest

import voxplain as vx
from voxplain.attribution.methods.saliency import Saliency
from voxplain.study.planning.tasks import Combination
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
