"""What of a run belongs to which case, and what of a case is drawn."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from html_page import Page
from synthetic_runs import RunWriter, evidence

from voxplain.records.manifest import Manifest
from voxplain.report import render
from voxplain.report.case_page import explained_mask
from voxplain.report.case_view import CaseView, describe
from voxplain.report.run_files import Backdrop, foreground_box, widened
from voxplain.viz.volume import DisplayVolume

AFFINE = np.diag([2.0, 1.5, 3.0, 1])


@pytest.mark.parametrize("label", [0, 7, None, "lesion"])
def test_without_the_explained_label_all_labels_are_outlined(label: object) -> None:
    labels = np.array([[0, 1], [2, 2]])
    np.testing.assert_array_equal(explained_mask(labels, label), labels > 0)


@pytest.mark.parametrize("label", [1, 2])
def test_of_several_labels_the_explained_one_is_outlined(label: int) -> None:
    labels = np.array([[0, 1], [2, 2]])
    np.testing.assert_array_equal(explained_mask(labels, label), labels == label)


def small_run(folder: Path, cases: tuple[str, ...]) -> Path:
    run = RunWriter(folder)
    for model in ("net", "other"):
        run.model(model)
    mask = np.zeros((6, 7, 8), bool)
    mask[2:4, 2:5, 3:6] = True
    for case in cases:
        run.case(case, 100.0 * mask[None], AFFINE)
        for model in ("net", "other"):
            run.prediction(case, model, mask, AFFINE, words=f"{model} of {case}")
            run.task(case, model, [f"{case} {model}"], status="failed", reason="it failed")
        run.map(case, "net", "saliency", evidence(mask, 0)[None], AFFINE)
    return run.finish()


def test_a_case_has_its_own_predictions_and_failures(tmp_path: Path) -> None:
    manifest = Manifest.read(small_run(tmp_path, ("a", "b", "c")))
    for record in manifest.cases:
        view = describe(record, manifest)
        words = [f"net of {record.id}", f"other of {record.id}"]
        assert [prediction.in_words for prediction in view.predictions] == words
        assert [task.methods for task in view.failed] == [
            [f"{record.id} net"],
            [f"{record.id} other"],
        ]


def test_once_the_page_is_full_every_case_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the cases that would still have fitted, and those after."""
    cases = ("a", "b", "c")
    monkeypatch.setattr(CaseView, "size", property(lambda view: 60_000 * bool(view.blobs)))
    index = Page(render(small_run(tmp_path, cases), budget=0))  # 100,000 bytes at least
    pages = [f"report-{case}.html" for case in cases]
    assert sorted(file.name for file in tmp_path.glob("report-*.html")) == pages
    assert set(pages) <= {link["href"] for link in index.all("a")}
    for case, page in zip(cases, pages, strict=True):
        assert f"net of {case}" in Page(tmp_path / page).text.lower()
    assert not index.data


def test_the_page_shows_what_is_bright_predicted_or_marked() -> None:
    shape = (30, 31, 32)
    image = np.zeros(shape, np.float32)
    image[10:14, 10:14, 10:14] = 50
    labels = np.zeros(shape, np.uint8)
    labels[20, 5, 12] = 3
    volume = DisplayVolume(image[None], AFFINE)
    plain = Backdrop(volume, ((0.0, 1.0),), {}, None)
    assert foreground_box(plain) == (slice(7, 17),) * 3
    predicted = Backdrop(volume, ((0.0, 1.0),), {"net": labels}, None)
    box = foreground_box(predicted)
    assert box == (slice(7, 24), slice(2, 17), slice(7, 17))
    values = np.zeros(shape, np.float32)
    values[28, 12, 4] = -1
    wide = widened(box, DisplayVolume(values[None], AFFINE))
    assert wide == (slice(7, 30), slice(2, 17), slice(3, 17))
    weak = values.copy()
    weak[0, 0, 0] = 0.4
    assert widened(box, DisplayVolume(weak[None], AFFINE)) == wide


def test_maps_share_outlines_and_the_image_has_its_stated_window(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    run.model("net")
    mask = np.zeros((6, 7, 8), bool)
    mask[2:4, 2:5, 3:6] = True
    run.case("c", 100.0 * mask[None], AFFINE, reference=mask)
    image = nibabel.load(tmp_path / "images/c_image.nii.gz")
    image.header["cal_min"], image.header["cal_max"] = -20, 70
    nibabel.save(image, tmp_path / "images/c_image.nii.gz")
    run.prediction("c", "net", ~mask, AFFINE)
    for number, name in enumerate(("saliency", "smoothgrad")):
        run.map("c", "net", name, evidence(mask, number)[None], AFFINE)
    (data,) = Page(render(run.finish())).data
    assert [outline["kind"] for outline in data["outlines"]] == ["prediction", "reference"]
    assert [shown["outlines"] for shown in data["maps"]] == [[0, 1], [0, 1]]
    assert [shown["window"] for shown in data["images"]] == [[-20, 70]]


def test_sizes_of_a_case_are_in_the_order_of_its_axes(tmp_path: Path) -> None:
    manifest = Manifest.read(small_run(tmp_path, ("a",)))
    facts = dict(describe(manifest.cases[0], manifest).facts)
    assert facts["Image"] == "6 × 7 × 8 voxels"
    assert facts["Voxel"] == "2 × 1.5 × 3 mm"
    assert facts["Orientation"] == "RAS"
