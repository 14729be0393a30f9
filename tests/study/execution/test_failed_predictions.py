"""A prediction that is not there is never passed over in silence."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import TinyStudy

from voxplain.study import Run, Study, run_study
from voxplain.study.execution.selection import Selection
from voxplain.study.execution.specs.prediction import PredictionSpec


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tiny: TinyStudy) -> set[str]:
    """The cases whose prediction fails; a study of saliency, which makes predictions of its own."""
    cases = {"a"}
    perform = PredictionSpec.perform

    def once(spec: PredictionSpec, *arguments: Any) -> Any:
        if spec.combination.case in cases:
            raise MemoryError
        return perform(spec, *arguments)

    monkeypatch.setattr(PredictionSpec, "perform", once)
    tiny.write(methods=["saliency"], run={"workers": 0})
    return cases


def run(tiny: TinyStudy, **selection: Any) -> Run:
    return run_study(Study.load(tiny.file), output=tiny.run, selection=Selection(**selection))


@pytest.mark.parametrize("selection", [{}, {"only_failed": True}, {"pattern": "a"}])
def test_a_failed_prediction_is_reported_and_made_by_the_next_run(
    tiny: TinyStudy, failing: set[str], selection: dict[str, Any]
) -> None:
    first = run(tiny)
    (task,) = first.failed
    assert (task.kind, task.case, task.methods) == ("prediction", "a", ["prediction"])
    assert first.exit_code == 1
    assert {each.case for each in first.manifest.maps} == {"a", "b"}
    assert {each.case for each in first.manifest.predictions} == {"b"}
    failing.clear()
    second = run(tiny, **selection)
    assert second.exit_code == 0
    assert not second.failed
    assert {each.case for each in second.manifest.predictions} == {"a", "b"}
    assert all((tiny.run / str(case.image)).is_file() for case in second.manifest.cases)


def test_a_run_of_other_tasks_still_says_that_a_prediction_failed(
    tiny: TinyStudy, failing: set[str]
) -> None:
    run(tiny)
    failing.clear()
    other = run(tiny, pattern="b")
    assert [task.kind for task in other.failed] == ["prediction"]
    assert other.exit_code == 0  # it was not asked for


def test_a_network_that_fails_is_reported_once(
    tiny: TinyStudy, failing: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from voxplain.study.execution.specs.explanation import ExplanationSpec

    def fails(spec: ExplanationSpec, *arguments: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(ExplanationSpec, "perform", fails)
    assert {task.kind for task in run(tiny).failed} == {"maps"}
