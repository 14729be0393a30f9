"""Studies whose cases come from tables, trees and data sets are planned as if written out."""

from __future__ import annotations

import json
import shutil
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from tiny import TinyStudy

from voxplain.study import CheckedStudy, Study, check_study, run_study
from voxplain.study.planning.images import read_case


def checked(tiny: TinyStudy, **changes: Any) -> CheckedStudy:
    return check_study(Study.load(tiny.write(**changes)))


@pytest.fixture
def written_out(tiny: TinyStudy) -> dict[str, str]:
    """The keys of the tasks of the study as it is written out, by case."""
    return {task.combination.case: task.key for task in checked(tiny).plan.tasks}


def test_a_table_a_tree_and_a_data_set_are_the_same_study(
    tiny: TinyStudy, written_out: dict[str, str]
) -> None:
    first, second = tiny.folder / "first.nii.gz", tiny.folder / "second.nii.gz"
    (tiny.folder / "cases.tsv").write_text("id\timage\na\tfirst.nii.gz\nb\tsecond.nii.gz\n")
    keys = {task.combination.case: task.key for task in _tasks(tiny, {"table": "cases.tsv"})}
    assert keys == written_out
    for name, file in {"01": first, "02": second}.items():
        folder = tiny.folder / f"bids/sub-{name}/anat"
        folder.mkdir(parents=True)
        shutil.copy(file, folder / f"sub-{name}_T1w.nii.gz")
    study = checked(tiny, cases={"bids": "bids", "suffix": "T1w"})
    assert [record.patient for record in study.records.values()] == ["sub-01", "sub-02"]
    assert study.records["sub-01"].shape == (14, 12, 10)
    folder = tiny.folder / "Dataset002/imagesTs"
    folder.mkdir(parents=True)
    facts = {"channel_names": {"0": "T1"}, "labels": {"background": 0}, "file_ending": ".nii.gz"}
    (folder.parent / "dataset.json").write_text(json.dumps(facts))
    shutil.copy(first, folder / "a_0000.nii.gz")
    shutil.copy(second, folder / "b_0000.nii.gz")
    entry = {"nnunet": "Dataset002", "split": "test"}
    keys = {task.combination.case: task.key for task in _tasks(tiny, entry)}
    assert keys == written_out


def _tasks(tiny: TinyStudy, cases: Any) -> Any:
    return checked(tiny, cases=cases).plan.tasks


def test_a_picture_of_a_data_set_has_its_channels_in_one_file(tiny: TinyStudy) -> None:
    folder = tiny.folder / "Dataset003/imagesTr"
    folder.mkdir(parents=True)
    names = {"0": "R", "1": "G", "2": "B"}
    facts = {"channel_names": names, "labels": {"background": 0, "road": 1}, "file_ending": ".png"}
    (folder.parent / "dataset.json").write_text(json.dumps(facts))
    colors = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    Picture.fromarray(colors).save(folder / "x_0000.png")
    (case,) = Study.load(tiny.write(cases={"nnunet": "Dataset003"})).expanded_cases()
    image = read_case(case)
    assert image.channels == ("R", "G", "B")
    assert np.array_equal(image.data.numpy(), colors.transpose(2, 0, 1))


def test_a_run_of_a_table_tells_no_path(tiny: TinyStudy) -> None:
    (tiny.folder / "cases.csv").write_text("patient,image\nmiller,first.nii.gz\n")
    run = run_study(Study.load(tiny.write(cases={"table": "cases.csv"}, methods=["saliency"])))
    assert run.exit_code == 0
    assert [path.name for path in run.maps] == ["case001_label-1_desc-saliency_attr.nii.gz"]
    texts = [(run.folder / name).read_text() for name in ("study.yaml", "manifest.json")]
    assert not any("first" in text or str(tiny.folder) in text for text in texts)
