"""Analyses of a study: over all cases of a network, kept, done again and cleaned like maps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import pytest
from tiny import TinyStudy

from voxplain.analyses import RESULT, Analysis, AnalysisCost, AnalysisInputs, analyses, register
from voxplain.errors import ConfigError
from voxplain.study import Run, Study, check_study, run_study
from voxplain.study.execution.store import Store
from voxplain.study.inspection.changes import reasons_to_run
from voxplain.study.inspection.clean import clean


class BrightestVoxel(Analysis):
    """The largest score over all cases."""

    family: ClassVar[str] = "test"
    needs_target: ClassVar[bool] = False

    name: Literal["brightest_voxel"] = "brightest_voxel"
    factor: float = 1.0

    def cost(self, cases: int) -> AnalysisCost:
        return AnalysisCost(cases, cases, "one look per case")

    def perform(self, inputs: AnalysisInputs) -> None:
        found = {}
        for number, case in enumerate(inputs.cohort):
            output = inputs.model.output(case.image.data[None])
            found[case.id] = self.factor * float(output.max())
            inputs.progress(number + 1, len(inputs.cohort))
        if self.factor < 0:
            raise ConfigError("a factor below 0 has no meaning")
        (inputs.folder / RESULT).write_text(json.dumps(found))


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    register(BrightestVoxel)
    yield
    analyses._entries.pop("brightest_voxel")


def go(tiny: TinyStudy, **changes: Any) -> Run:
    return run_study(Study.load(tiny.write(**changes)))


def result(run: Run) -> dict[str, float]:
    (record,) = run.manifest.analyses
    found: dict[str, float] = json.loads((run.folder / record.folder / RESULT).read_text())
    return found


def test_an_analysis_sees_every_case_of_a_network(tiny: TinyStudy) -> None:
    run = go(tiny, analyses=["brightest_voxel"])
    assert run.exit_code == 0
    (record,) = run.manifest.analyses
    assert record.cases == ["a", "b"]
    assert (record.model, record.target, record.label) == ("net", "", "brightest_voxel")
    assert {*result(run)} == {"a", "b"}
    (task,) = [task for task in run.manifest.tasks if task.kind == "analysis"]
    assert (task.status, task.case, task.methods) == ("done", "", ["brightest_voxel"])


def test_it_needs_neither_methods_nor_a_target(tiny: TinyStudy) -> None:
    run = go(tiny, methods=[], target=None, analyses=["brightest_voxel"])
    assert run.exit_code == 0
    assert len(run.manifest.tasks) == 1
    assert run.manifest.analyses
    with pytest.raises(ConfigError, match="nothing to do"):
        go(tiny, analyses=[])


def test_it_is_kept_until_something_changes(tiny: TinyStudy) -> None:
    study = {"analyses": ["brightest_voxel"]}
    first = go(tiny, **study)
    file = first.folder / first.manifest.analyses[0].folder / RESULT
    score, before = result(first)["a"], file.stat().st_mtime_ns
    go(tiny, **study)
    assert file.stat().st_mtime_ns == before
    doubled = go(tiny, analyses=[{"name": "brightest_voxel", "factor": 2}])
    assert file.stat().st_mtime_ns > before
    assert result(doubled)["a"] == pytest.approx(2 * score)


def test_the_plan_says_why_it_is_done_again(tiny: TinyStudy) -> None:
    def why(**changes: Any) -> set[str]:
        checked = check_study(Study.load(tiny.write(**changes)))
        reasons = reasons_to_run(checked, Store(tiny.run))
        return {reason for key, reason in reasons.items() if key[0] == "analysis"}

    plain = {"analyses": ["brightest_voxel"]}
    assert why(**plain) == {"new"}
    run = go(tiny, **plain)
    assert why(**plain) == set()
    changed = {"analyses": [{"name": "brightest_voxel", "factor": 3}]}
    assert why(**changed) == {"changed: parameters, concepts, cases or network"}
    (run.folder / run.manifest.analyses[0].folder / RESULT).write_text("{")
    assert why(**plain) == {"its files are missing or damaged"}


def test_a_failure_leaves_the_rest(tiny: TinyStudy) -> None:
    run = go(tiny, analyses=[{"name": "brightest_voxel", "factor": -1}])
    assert run.exit_code == 1
    (failed,) = run.failed
    assert "ConfigError" in str(failed.reason)
    assert run.maps
    assert run.manifest.analyses == []


def test_files_of_an_analysis_that_is_gone_are_cleaned(tiny: TinyStudy) -> None:
    run = go(tiny, analyses=["brightest_voxel", {"name": "brightest_voxel", "label": "second"}])
    folders = {record.label: run.folder / record.folder for record in run.manifest.analyses}
    assert clean(run.folder) == []
    go(tiny, analyses=["brightest_voxel"])
    clean(run.folder)
    assert folders["brightest_voxel"].is_dir()
    assert not folders["second"].exists()


def test_targets_that_differ_by_case_are_refused(tiny: TinyStudy, monkeypatch: Any) -> None:
    monkeypatch.setattr(BrightestVoxel, "needs_target", True)
    each = {"for_each": "component", "label": 1}
    with pytest.raises(ConfigError, match="differs from case to case"):
        check_study(Study.load(tiny.write(target=each, analyses=["brightest_voxel"])))
