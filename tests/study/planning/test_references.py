"""Other cases of a study as references of the methods that compare with them."""

from __future__ import annotations

import warnings
from typing import Any

import nibabel
import numpy as np
import pytest
import yaml
from tiny import TinyStudy, blob, save

from voxplain.attribution import explain
from voxplain.errors import ConfigError
from voxplain.io import read_image
from voxplain.study import Run, Study, check_study, run_study

METHODS: list[dict[str, Any]] = [
    {"name": "expected_gradients", "samples": 4},
    {"name": "gradient_shap", "samples": 4},
    {"name": "deep_lift_shap"},
]
TARGET = {"kind": "pixelwise", "label": 1}


def go(tiny: TinyStudy, references: list[str], methods: list[Any]) -> Run:
    save(tiny.folder / "third.nii.gz", blob((4, 8, 4)))
    return run_study(Study.load(tiny.write(references=references, methods=methods)))


def test_references_are_cases_and_files(tiny: TinyStudy) -> None:
    """Every case is compared with the others, never with itself."""
    import tiny_net

    run = go(tiny, ["a", "b", "third.nii.gz"], METHODS)
    assert run.exit_code == 0
    names = {"a": "first", "b": "second"}
    others = [read_image(tiny.folder / f"{name}.nii.gz") for name in ("first", "second", "third")]
    for case, name in names.items():
        image = read_image(tiny.folder / f"{name}.nii.gz")
        network = tiny_net.build().eval()
        found = explain(network, image, METHODS[2], TARGET, references=others)
        attribution = found["deep_lift_shap"]
        at = f"maps/{case}/net/{case}_label-1_desc-deep_lift_shap_attr.nii.gz"
        written = np.asarray(nibabel.load(run.folder / at).dataobj)
        np.testing.assert_allclose(written, attribution.map[0].numpy(), atol=1e-5)
        assert attribution.stats.passes == 2
        for method in METHODS[:2]:
            stem = f"{case}_label-1_desc-{method['name']}_attr.nii.gz"
            drawn = np.asarray(nibabel.load(run.folder / f"maps/{case}/net" / stem).dataobj)
            assert np.isfinite(drawn).all()
            assert drawn.std() > 0
    resolved = yaml.safe_load((run.folder / "study.yaml").read_text())
    assert len(resolved["references"]) == 3


def test_too_few_references_are_refused(tiny: TinyStudy) -> None:
    """Case a alone as reference leaves case a none, and the other methods go on."""
    run = go(tiny, ["a"], ["saliency", METHODS[0]])
    assert run.exit_code != 0
    failed = [task for task in run.manifest.tasks if task.status != "done"]
    assert {task.case for task in failed} == {"a", "b"}
    assert all("at least 2" in str(task.reason) for task in failed)


@pytest.mark.parametrize("against", [0, {"kind": "pixelwise", "label": 0}])
def test_a_contrast_with_another_class(tiny: TinyStudy, against: Any) -> None:
    methods = [{"name": "contrast_map", "of": "saliency", "against": against}]
    run = go(tiny, [], methods)
    assert run.exit_code == 0
    assert len(run.maps) == 2


def test_no_references_are_refused_by_the_plan(tiny: TinyStudy) -> None:
    """For methods of the image and of layers, alone and around others."""
    for method in (*METHODS, {"name": "layer_gradient_shap", "layers": ["features"]}):
        study = Study.load(tiny.write(references=[], methods=["saliency", method]))
        with pytest.raises(ConfigError, match=f"references: {method['name']}: .* and 0 are given"):
            check_study(study)
    assert check_study(Study.load(tiny.write(methods=["saliency", "integrated_gradients"])))


def test_too_few_for_some_cases_are_failures_of_those(tiny: TinyStudy) -> None:
    save(tiny.folder / "third.nii.gz", blob((4, 8, 4)))
    cases = [*tiny.config["cases"], {"id": "c", "image": "third.nii.gz"}]
    tiny.write(cases=cases)
    run = go(tiny, ["a", "b"], ["saliency", METHODS[0]])
    assert {(task.case, task.methods[0]) for task in run.failed} == {
        ("a", "expected_gradients"),
        ("b", "expected_gradients"),
    }
    assert len(run.maps) == 4


@pytest.mark.parametrize(
    ("references", "enough"),
    [(["a", "b"], False), (["a", "third.nii.gz"], True), (["a", "b", "third.nii.gz"], True)],
)
def test_the_plan_says_whether_some_case_has_enough_others(
    tiny: TinyStudy, references: list[str], enough: bool
) -> None:
    """Two others are enough, and a case is no other of its own."""
    save(tiny.folder / "third.nii.gz", blob((4, 8, 4)))
    study = Study.load(tiny.write(references=references, methods=["saliency", METHODS[0]]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_study(study)
    texts = [str(warning.message) for warning in caught]
    assert any("references: expected_gradients" in text for text in texts) is not enough
