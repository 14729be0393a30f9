"""Targets for each lesion, error and class of a prediction; the numbers are counted by hand.

The network predicts class 1 where the mean of 27 voxels exceeds 1/2. Of a bright cube this leaves
its inside and its faces without their edges: 27 + 6 · 9 = 81 voxels of a side of 5, 8 + 6 · 4 = 32
of 4, 1 + 6 = 7 of 3. A voxel has 9 mm³.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny import SHAPE, TinyStudy, save

from voxplain.errors import ConfigError, TargetError
from voxplain.metrics import parse_metric
from voxplain.records.candidates import read_candidates
from voxplain.study import CheckedStudy, Study, check_study, run_study
from voxplain.study.kept_study import study_of_run
from voxplain.study.planning import preflight
from voxplain.study.reevaluate import evaluate_run, reevaluation_of

LESION = {"for_each": "component", "label": 1}


def cubes(*places: tuple[int, int, int, int]) -> np.ndarray:
    """Bright cubes, each by its first corner and its side."""
    image = np.zeros(SHAPE, dtype=np.float32)
    for i, j, k, side in places:
        image[i : i + side, j : j + side, k : k + side] = 1
    return image


@pytest.fixture
def lesions(tiny: TinyStudy) -> TinyStudy:
    """Case a has lesions of 81 and 7 voxels, b one of 32, and c none."""
    save(tiny.folder / "a.nii.gz", cubes((1, 1, 1, 5), (9, 7, 6, 3)))
    save(tiny.folder / "b.nii.gz", cubes((4, 4, 4, 4)))
    save(tiny.folder / "c.nii.gz", cubes())
    cases = [{"id": name, "image": f"{name}.nii.gz"} for name in "abc"]
    tiny.write(cases=cases, target=LESION, methods=["saliency"])
    return tiny


def checked(tiny: TinyStudy, **changes: Any) -> CheckedStudy:
    return check_study(Study.load(tiny.write(**changes)))


def slugs(study: CheckedStudy) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {case: [] for case in study.cases}
    for combination in study.combinations:
        names[combination.case].append(combination.slug)
    return names


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows with every prediction that planning makes."""
    made: list[str] = []
    for name in ("output_for_case", "predict_case"):
        real = getattr(preflight, name)

        def counted(*arguments: Any, name: str = name, real: Any = real) -> Any:
            made.append(name)
            return real(*arguments)

        monkeypatch.setattr(preflight, name, counted)
    return made


def test_each_lesion_is_a_target_and_a_case_without_any_has_a_remark(
    lesions: TinyStudy, looks: list[str]
) -> None:
    study = checked(lesions)
    assert slugs(study) == {
        "a": ["1_component-1", "1_component-2"],
        "b": ["1_component-1"],
        "c": [],
    }
    assert len(study.plan.tasks) == 3
    (remark,) = study.records["c"].warnings
    assert remark == "case c, model net: no predicted components of class 1"
    assert not study.records["a"].warnings
    assert looks == ["output_for_case"] * 3
    assert [list(each.sizes.values()) for each in study.candidates.values()] == [[81, 7], [32], []]


@pytest.mark.parametrize(
    ("limits", "components", "remark"),
    [
        ({"min_size": 7}, 2, ""),
        (
            {"min_size": 8},
            1,
            "1 of 2 predicted components of class 1 are explained; left out: 1 sma",
        ),
        ({"min_size": "63mm3"}, 2, ""),
        ({"min_size": "63.1 mm3"}, 1, "left out: 1 smaller than 63.1 mm3"),
        ({"min_size": "0.7mL"}, 1, "1 smaller than 0.7mL"),
        ({"min_size": "0.73mL"}, 0, "no predicted components of class 1; left out: 2 smaller than"),
        ({"max_count": 1}, 1, "left out: 1 beyond the largest"),
    ],
)
def test_limits_of_size_and_number(
    lesions: TinyStudy, limits: dict[str, Any], components: int, remark: str
) -> None:
    both = [{**LESION, **limits}, {"kind": "pixelwise", "label": 0}]
    lesions.config.pop("target")
    lesions.write(cases=lesions.config["cases"][:1], targets=both)
    if not components:
        with pytest.raises(TargetError, match="no case has any; case a: no predicted components"):
            checked(lesions)
        return
    study = checked(lesions)
    assert slugs(study)["a"] == [f"1_component-{k + 1}" for k in range(components)] + ["0"]
    assert remark in "".join(study.records["a"].warnings)
    assert bool(remark) == bool(study.records["a"].warnings)


def test_errors_against_the_reference(lesions: TinyStudy, looks: list[str]) -> None:
    truth = np.zeros(SHAPE, dtype=np.float32)
    truth[1:6, 1:6, 1:6] = 1  # 44 voxels at its edges are missed, in one component
    truth[9:11, 1:3, 7:9] = 1  # 8 more
    save(lesions.folder / "seg.nii.gz", truth)
    cases = [{"id": "a", "image": "a.nii.gz", "reference": "seg.nii.gz"}]
    error = {"for_each": "component", "kind": "error_region", "label": 1}
    lesions.config.pop("target")
    lesions.write(cases=cases, targets=[{**error, "error": "fp"}, {**error, "error": "fn"}])
    study = checked(lesions)
    assert slugs(study)["a"] == ["1_fp-1", "1_fn-1", "1_fn-2"]
    assert looks == ["output_for_case"]
    assert [list(each.sizes.values()) for each in study.candidates.values()] == [[7], [44, 8]]
    assert str(lesions.folder) not in str([each.named for each in study.combinations])


def test_classes_of_a_segmentation(lesions: TinyStudy) -> None:
    lesions.write(cases=lesions.config["cases"][:2])
    study = checked(lesions, target={"for_each": "class"})
    assert slugs(study) == {"a": ["1"], "b": ["1"]}
    (remark,) = study.records["a"].warnings
    assert "1 of 2 classes are explained; left out: number 2 (class 2 is predicted" in remark
    study = checked(lesions, target={"for_each": "class", "kind": "volume"})
    assert slugs(study)["a"] == ["volume1", "volume2"]
    study = checked(lesions, target={"for_each": "predicted_class"})
    assert slugs(study)["b"] == ["1"]
    assert not study.records["b"].warnings


def test_equal_targets_are_explained_once(lesions: TinyStudy) -> None:
    lesions.config.pop("target")
    targets = [{"kind": "region", "label": 1, "component": 1}, {**LESION, "max_count": 5}]
    lesions.write(cases=lesions.config["cases"][:1], targets=targets)
    assert slugs(checked(lesions))["a"] == ["1_component-1", "1_component-2"]
    clash = [{"for_each": "class"}, {"for_each": "class", "kind": "pixelwise"}]
    with pytest.raises(ConfigError, match="are both called '1'"):
        checked(lesions, targets=clash)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({"for_each": "lesion"}, "study.yaml: target: unknown for_each 'lesion'; known: class, co"),
        ({**LESION, "min_sise": 3}, "study.yaml: target.min_sise: unknown parameter; did you mean"),
        ({**LESION, "min_size": "3mm"}, "study.yaml: target.min_size: '3mm' is not a size; write"),
        ({"for_each": "component"}, "study.yaml: target.label: this is required"),
        ({"for_each": "class", "link": "score"}, "study.yaml: target: link is for class_score and"),
    ],
)
def test_mistakes_are_named_with_their_place(
    lesions: TinyStudy, written: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Study.load(lesions.write(target=written))
    assert str(caught.value).startswith(words)


def test_a_size_that_does_not_fit_and_nothing_in_any_case(lesions: TinyStudy) -> None:
    with pytest.raises(TargetError, match="min_size 3mm2 does not fit an output of 3 axes"):
        checked(lesions, target={**LESION, "min_size": "3mm2"})
    with pytest.raises(TargetError) as caught:
        checked(lesions, cases=lesions.config["cases"][2:], target=LESION)
    assert str(caught.value) == (
        "model net, for_each(predicted components of class 1): no case has any; "
        "case c: no predicted components of class 1"
    )


def test_a_run_names_files_by_the_parts_and_is_resumed_without_predictions(
    lesions: TinyStudy, looks: list[str]
) -> None:
    study = Study.load(lesions.write(target={**LESION, "max_count": 1}))
    run = run_study(study)
    assert run.exit_code == 0
    names = sorted(path.name for path in run.maps)
    assert names == [f"{case}_label-1_component-1_desc-saliency_attr.nii.gz" for case in ("a", "b")]
    assert "1 beyond the largest" in run.manifest.cases[0].warnings[0]
    before = lesions.files(lesions.run / "maps")
    looks.clear()
    more = Study.load(lesions.write(target={**LESION, "max_count": 9}))
    again = run_study(more)
    assert looks == []
    assert [record.target for record in again.manifest.maps] == [
        "1_component-1",
        "1_component-2",
        "1_component-1",
    ]
    after = lesions.files(lesions.run / "maps")
    assert {name: after[name] for name in before} == before
    assert len(read_candidates(lesions.run)) == 3
    assert slugs(check_study(more))["a"] == ["1_component-1", "1_component-2"]
    assert looks == []
    save(lesions.folder / "b.nii.gz", cubes((4, 4, 4, 5)))
    check_study(more)
    assert looks == ["output_for_case"]


@pytest.mark.slow
def test_a_run_of_parts_is_scored_afterwards_from_its_folder(lesions: TinyStudy) -> None:
    run = run_study(Study.load(lesions.write(target=LESION)))
    assert "1_component-2" in run.write_report().read_text()
    study = study_of_run(run.folder, {"weights": str(lesions.folder / "net.safetensors")})
    study = reevaluation_of(study, [parse_metric("sparseness")], None)
    result = evaluate_run(run.folder, study)
    assert not result.failures
    scored = {(row.case, row.target) for row in result.scores if row.method == "saliency"}
    assert scored == {("a", "1_component-1"), ("a", "1_component-2"), ("b", "1_component-1")}
