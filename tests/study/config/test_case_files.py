"""Targets and methods with files: the file of every case, and no file name in the run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny import TinyStudy, blob, save

from voxplain.engine.method import parse_method
from voxplain.errors import ConfigError, InputError, VoxplainError
from voxplain.io import read_image, read_mask
from voxplain.records.atomic import sha256
from voxplain.study import Run, Study, run_study
from voxplain.study.config.case_files import contents, files_of, for_case, without_files
from voxplain.study.config.cases import CaseConfig
from voxplain.targets import ErrorRegion, Pixelwise, parse_target


@pytest.fixture
def masked(tiny: TinyStudy) -> TinyStudy:
    for name, center in (("a", (6, 6, 5)), ("b", (8, 4, 6))):
        inside = np.zeros((14, 12, 10), np.uint8)
        inside[center[0], center[1], center[2]] = 1
        save(tiny.folder / f"{name}_SMITH.nii.gz", inside)
        save(tiny.folder / f"{name}_truth.nii.gz", (blob(center) > 1.2).astype(np.uint8))
    tiny.config["cases"] = [
        {"id": name, "image": image, "reference": f"{name}_truth.nii.gz"}
        for name, image in (("a", "first.nii.gz"), ("b", "second.nii.gz"))
    ]
    return tiny


def run(tiny: TinyStudy, **changes: Any) -> Run:
    return run_study(Study.load(tiny.write(**changes)))


def test_each_case_has_its_own_mask_and_no_file_name_is_written(masked: TinyStudy) -> None:
    target = {"kind": "region", "label": 1, "mask": "*_SMITH.nii.gz"}
    done = run(masked, target=target, methods=["saliency"])
    assert [record.in_words for record in done.manifest.predictions] == [
        done.manifest.predictions[0].in_words
    ] * 2
    assert "over the 1 voxels" in done.manifest.predictions[0].in_words
    for name in masked.files(done.folder):
        assert "SMITH" not in name
        if not name.endswith(".gz"):
            assert "SMITH" not in (done.folder / name).read_text()


def test_the_reference_of_the_case_serves_an_error_target(masked: TinyStudy) -> None:
    target = {"kind": "error_region", "label": 1, "reference": "reference"}
    done = run(masked, target=target, methods=["saliency"])
    for record, image in zip(
        done.manifest.predictions, ("first.nii.gz", "second.nii.gz"), strict=True
    ):
        grid = read_image(masked.folder / image).grid
        truth = read_mask(masked.folder / f"{record.case}_truth.nii.gz", grid)
        predicted = read_mask(done.folder / str(record.image), grid)
        wrong = int(((predicted == 1) & (truth == 0)).sum())
        assert f"the {wrong} voxels" in record.in_words


def test_a_changed_mask_makes_its_case_new(masked: TinyStudy) -> None:
    target = {"kind": "region", "label": 1, "mask": "*_SMITH.nii.gz"}
    before = run(masked, target=target, methods=["saliency"])
    times = [path.stat().st_mtime_ns for path in before.maps]
    inside = np.zeros((14, 12, 10), np.uint8)
    inside[5:7, 5:7, 5] = 1
    save(masked.folder / "a_SMITH.nii.gz", inside)
    after = run(masked)
    changed = [
        path.stat().st_mtime_ns != time for path, time in zip(after.maps, times, strict=True)
    ]
    assert changed == [True, False]


def test_a_missing_mask_is_said_for_any_case_before_anything_runs(masked: TinyStudy) -> None:
    (masked.folder / "b_SMITH.nii.gz").unlink()
    with pytest.raises(VoxplainError, match="case b: there is no file"):
        run(masked, target={"kind": "region", "label": 1, "mask": "*_SMITH.nii.gz"})
    assert not masked.run.exists()


def test_files_inside_a_contrast_are_found(masked: TinyStudy) -> None:
    target = parse_target(
        {
            "kind": "contrast",
            "a": {"kind": "pixelwise", "label": 1},
            "b": {"kind": "region", "label": 0, "mask": "*_SMITH.nii.gz"},
        }
    )
    case = CaseConfig(id="a", image=(masked.folder / "first.nii.gz",))
    with_paths = for_case(target, case, masked.folder)
    assert list(files_of(with_paths)) == [str(masked.folder / "a_SMITH.nii.gz")]
    assert "SMITH" not in str(without_files(with_paths))
    assert without_files(target).slug == without_files(target).slug


def test_a_target_without_files_is_itself(masked: TinyStudy) -> None:
    target = Pixelwise(label=1)
    case = CaseConfig(id="a", image=("x.nii",))
    assert for_case(target, case, masked.folder) is target
    assert without_files(target) is target


def test_what_is_missing_is_named(masked: TinyStudy) -> None:
    case = CaseConfig(id="a", image=("x.nii",))
    with pytest.raises(ConfigError, match="reference of case a"):
        for_case(ErrorRegion(label=1, reference="reference"), case, masked.folder)
    with pytest.raises(InputError, match="no file"):
        for_case(ErrorRegion(label=1, reference="none.nii"), case, masked.folder)


@pytest.fixture
def drawn(tiny: TinyStudy) -> TinyStudy:
    """Each case with its own atlas, and one table of names."""
    for name, center in (("a", (6, 6, 5)), ("b", (8, 4, 6))):
        labels = np.where(blob(center) > 0.8, 1, 2).astype(np.int16)
        labels[:, :, :2] = 0
        save(tiny.folder / f"{name}_JONES.nii.gz", labels)
    (tiny.folder / "table_JONES.tsv").write_text("1\tvessel\n2\tground\n")
    return tiny


def on_regions(labels: Any = "*_JONES.nii.gz", **others: Any) -> list[dict[str, Any]]:
    regions = {"kind": "labels", "labels": labels, "names": "table_JONES.tsv", **others}
    return [{"name": "feature_ablation", "regions": regions}]


def test_each_case_has_its_own_label_map_and_no_file_name_is_written(drawn: TinyStudy) -> None:
    done = run(drawn, methods=on_regions())
    assert not done.manifest.failed
    assert len(done.maps) == 2
    for name in drawn.files(done.folder):
        assert "JONES" not in name
        if not name.endswith((".gz", ".png")):
            assert "JONES" not in (done.folder / name).read_text(errors="ignore"), name
    for case, path in zip("ab", done.maps, strict=True):
        grid = read_image(drawn.folder / "first.nii.gz").grid
        labels = read_mask(drawn.folder / f"{case}_JONES.nii.gz", grid)
        values = read_image(path).data[0]
        assert all(len(values[labels == label].unique()) == 1 for label in range(3))
        assert float(values[labels == 1].mean()) > abs(float(values[labels == 2].mean()))


def test_a_changed_label_map_makes_its_case_new_and_no_other(drawn: TinyStudy) -> None:
    before = run(drawn, methods=on_regions())
    times = [path.stat().st_mtime_ns for path in before.maps]
    labels = np.ones((14, 12, 10), np.int16)
    labels[5:9] = 2
    save(drawn.folder / "a_JONES.nii.gz", labels)
    after = run(drawn)
    changed = [
        path.stat().st_mtime_ns != time for path, time in zip(after.maps, times, strict=True)
    ]
    assert changed == [True, False]


def test_a_label_map_inside_a_method_of_a_method_is_found(drawn: TinyStudy) -> None:
    method = parse_method({"name": "xrai", "of": on_regions()[0]})
    case = CaseConfig(id="a", image=(drawn.folder / "first.nii.gz",))
    with_paths = for_case(method, case, drawn.folder)
    names = [drawn.folder / name for name in ("a_JONES.nii.gz", "table_JONES.tsv")]
    assert list(files_of(with_paths)) == [str(name) for name in names]
    assert "JONES" not in with_paths.model_dump_json()
    assert for_case(parse_method("saliency"), case, drawn.folder) == parse_method("saliency")


def test_the_reference_of_the_case_serves_as_label_map(masked: TinyStudy) -> None:
    regions = {"kind": "labels", "labels": "reference"}
    done = run(masked, methods=[{"name": "feature_ablation", "regions": regions}])
    assert not done.manifest.failed
    assert "truth" not in (done.folder / "study.yaml").read_text()


@pytest.mark.parametrize("wrong", ["missing", "grid", "empty"])
def test_a_label_map_that_does_not_fit_is_refused_before_anything_runs(
    drawn: TinyStudy, wrong: str
) -> None:
    file = drawn.folder / "b_JONES.nii.gz"
    if wrong == "missing":
        file.unlink()
    else:
        save(file, np.zeros((14, 12, 10 if wrong == "empty" else 9), np.int16))
    reasons = {"missing": "there is no file", "grid": "another grid", "empty": "voxel of it is 0"}
    with pytest.raises(VoxplainError, match=f"case b.*{reasons[wrong]}"):
        run(drawn, methods=on_regions())
    assert not drawn.run.exists()


def test_every_file_of_a_declaration_counts(tiny: TinyStudy) -> None:
    """Also the second, and those of what is inside."""
    first, second = (save(tiny.folder / f"{n}.nii.gz", blob((n, 6, 5))) for n in (3, 4))
    hashes = [sha256(first), sha256(second)]
    mask = {"kind": "region", "label": 1, "mask": str(first)}
    other = {"kind": "region", "label": 2, "mask": str(second)}
    contrast = parse_target({"kind": "contrast", "a": mask, "b": other})
    assert contents(contrast) == hashes
    assert contents(parse_target(mask)) == hashes[:1]
    assert contents(parse_target(1)) == []
