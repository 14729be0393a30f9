"""What a later evaluation takes over, and which scores it replaces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from voxplain.errors import ConfigError
from voxplain.metrics import parse_metric
from voxplain.records.scores import Score, Scores
from voxplain.study.config.study import StudyConfig
from voxplain.study.reevaluate import merged, reevaluation_of

ROW = Score("gini", "m", 0.5, "up", case="a", model="net", target="1", parameters={"bins": 2})


@pytest.mark.parametrize(
    "other",
    [
        {"metric": "auc"},
        {"method": "n"},
        {"case": "b"},
        {"model": "other"},
        {"target": "2"},
        {"parameters": {"bins": 3}},
    ],
)
def test_a_score_replaces_the_one_of_the_same_question_alone(other: dict[str, Any]) -> None:
    before = Scores((ROW, replace(ROW, **other)))
    new = replace(ROW, value=0.75, seed=1, reason="another one")
    assert list(merged(before, Scores((new,)))) == [replace(ROW, **other), new]
    assert list(merged(before, Scores())) == list(before)
    assert list(merged(Scores(), before)) == list(before)


def study(folder: Path, cases: int = 1, **facts: Any) -> StudyConfig:
    for number in range(cases):
        (folder / f"c{number}.nii").touch()
        (folder / f"c{number}_mask.nii").touch()
    mapping = {
        "cases": [{"id": f"c{number}", "image": f"c{number}.nii"} for number in range(cases)],
        "models": [{"name": "net", "factory": "a:b"}],
        "target": 1,
        "methods": ["saliency"],
        "metrics": ["sparseness"],
        "randomization": {"steps": 2},
    }
    return StudyConfig.parse(mapping | facts, base=folder)


def test_other_metrics_come_in_place_of_all_that_was_evaluated(tmp_path: Path) -> None:
    """A cascade takes longer than all else, and is not asked for again."""
    entropy = parse_metric("entropy")
    changed = reevaluation_of(study(tmp_path), [entropy], None)
    assert (changed.metrics, changed.randomization) == ((entropy,), None)
    same = reevaluation_of(study(tmp_path), [], None)
    assert [metric.name for metric in same.metrics] == ["sparseness"]
    assert same.randomization is not None


def test_a_reference_is_that_of_its_case(tmp_path: Path) -> None:
    asked = study(tmp_path, 2)
    changed = reevaluation_of(asked, [], tmp_path / "*_mask.nii", 3)
    found = [(case.reference, case.reference_label) for case in changed.cases]
    assert found == [(tmp_path / f"c{number}_mask.nii", 3) for number in range(2)]
    with pytest.raises(ConfigError, match="one reference for 2 cases"):
        reevaluation_of(asked, [], tmp_path / "c0_mask.nii")
    with pytest.raises(ConfigError, match="the reference of case c0"):
        reevaluation_of(asked, [], tmp_path / "*_none.nii")
    (case,) = reevaluation_of(study(tmp_path), [], tmp_path / "c1_mask.nii").cases
    assert case.reference == tmp_path / "c1_mask.nii"
