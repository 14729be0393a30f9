"""Cases from folders, tables, BIDS trees and nnU-Net data sets, against trees written by hand."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from voxplain.errors import ConfigError, VoxplainWarning
from voxplain.study import Study
from voxplain.study.config.case_bids import CaseBids
from voxplain.study.config.case_nnunet import RAW, CaseNnunet
from voxplain.study.config.case_sources import CaseFolder
from voxplain.study.config.case_tables import CaseTable
from voxplain.study.config.cases import CaseConfig

Expand = Callable[[Any], tuple[CaseConfig, ...]]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.fixture
def expand(tmp_path: Path) -> Expand:
    """The cases of a study whose file is in the temporary folder."""

    def cases(written: Any) -> tuple[CaseConfig, ...]:
        rest = {"models": [{"name": "n", "factory": "a:b"}], "target": 1, "methods": ["saliency"]}
        return Study.parse({**rest, "cases": written}, base=tmp_path).expanded_cases()

    return cases


@pytest.fixture
def table(tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """Writes a table beside its images a, b and c of two channels."""
    touch(tmp_path / "lists", *(f"{name}_{kind}.nii" for name in "abc" for kind in ("t1", "seg")))
    touch(tmp_path / "lists", *(f"{name}_flair.nii" for name in "abc"))

    def write(text: str, name: str = "cases.csv") -> dict[str, Any]:
        (tmp_path / "lists" / name).write_text(text)
        return {"table": f"lists/{name}"}

    return write


def refused(expand: Expand, written: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        expand(written)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_folders_of_patterns(tmp_path: Path, expand: Expand) -> None:
    touch(tmp_path / "data", "p1/t1.nii", "p2/t1.nii", "p3/t1.nii", "p1/seg.nii", "p2/seg.nii")
    entry = {"folder": "data", "image": "*/t1.nii", "id": "*", "reference": "*/seg.nii"}
    cases = expand({**entry, "ids": ["p1", "p3"]})
    assert [case.id for case in cases] == ["p1", "p3"]
    assert cases[0].image == (tmp_path / "data/p1/t1.nii",)
    assert cases[0].reference == tmp_path / "data/p1/seg.nii"
    assert type(cases[0]) is CaseConfig
    assert [case.id for case in expand({**entry, "limit": 2})] == ["p1", "p2"]
    assert "no case fits 'p7'; did you mean" in refused(expand, {**entry, "ids": "p7"})
    assert "have none" in refused(expand, {"folder": "data", "image": "*/t1.nii", "ids": "p*"})
    assert "there is no folder" in refused(expand, {**entry, "folder": "date"})


def test_a_table_with_a_column_of_images(
    tmp_path: Path, expand: Expand, table: Callable[..., Any]
) -> None:
    text = (
        "id,patient,image,reference,reference_label,truth,spacing\n"
        "a1,007,a_t1.nii;a_flair.nii,a_seg.nii,2,0,1 1 2.5\n"
        "\n"
        f"b1,,{tmp_path}/lists/b_t1.nii,,,1.0,\n"
    )
    first, second = expand({**table(text), "spacing": 3, "reference_label": 1})
    folder = tmp_path / "lists"
    assert first == CaseConfig(
        id="a1",
        patient="007",
        image=(folder / "a_t1.nii", folder / "a_flair.nii"),
        reference=folder / "a_seg.nii",
        reference_label=2,
        truth=0,
        spacing=(1.0, 1.0, 2.5),
    )
    assert (second.image, second.truth, second.patient) == ((folder / "b_t1.nii",), 1, None)
    assert (second.spacing, second.reference_label, second.reference) == ((3.0,), 1, None)


@pytest.mark.parametrize("written", [{}, {"channels": ["flair", "t1"], "ignore": "age"}])
def test_a_table_with_a_column_per_channel(
    tmp_path: Path, expand: Expand, table: Callable[..., Any], written: dict[str, Any]
) -> None:
    age = "\tage" if written else ""
    text = f"flair\tt1{age}\nb_flair.nii\tb_t1.nii{age and chr(9) + '71'}\n"
    (case,) = expand({**table(text, "cases.tsv"), **written})
    assert case.id == "case001"
    assert case.channels == ("flair", "t1")
    assert [path.name for path in case.image] == ["b_flair.nii", "b_t1.nii"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,image,refernce\nx,a_t1.nii,\n", "unknown column 'refernce'; did you mean reference?"),
        ("id,t1,refernce\nx,a_t1.nii,a_seg.nii\n", "did you mean reference?"),
        ("id,image,age\nx,a_t1.nii,7\n", "unknown column 'age'"),
        ("id,t1,age\nx,a_t1.nii,7\n", "cases.csv, row 2: there is no file"),
        ("id,image\nx,a_t1.nii\n\nx,b_t1.nii\n", "row 4: the id 'x' is that of row 2 too"),
        ("id,image\nx,a_t1.nii\ny,\n", "cases.csv, row 3: the column 'image' is empty"),
        ("id,image\nx,a_t1.nii,3\n", "row 2: 3 cells, and the header has 2"),
        ("id,image\n../x,a_t1.nii\n", "row 2: id: '../x' goes into file names"),
        ("id,image\n*,a_t1.nii\n", "row 2: id: '*' has a *"),
        ("id,image,truth\nx,a_t1.nii,yes\n", "row 2: truth: 'yes' is not a whole number"),
        ("id,image,spacing\nx,a_t1.nii,1mm\n", "row 2: spacing: '1mm' is not a size"),
        ("id,image,rank\nx,a_t1.nii,5\n", "row 2: rank: 5 should be 2 or 3"),
        ("id,image,image\nx,a_t1.nii,b_t1.nii\n", "two columns are called 'image'"),
        ("id,truth\nx,1\n", "no column 'image'"),
        ("id,image\n", "no rows below the header"),
        ("", "the first row of a table names its columns"),
    ],
)
def test_mistakes_in_a_table_name_their_row(
    expand: Expand, table: Callable[..., Any], text: str, words: str
) -> None:
    message = refused(expand, table(text))
    assert message.startswith("cases.csv")
    assert words in message


def test_columns_that_a_table_does_not_have(expand: Expand, table: Callable[..., Any]) -> None:
    written = table("id,flair\nx,a_flair.nii\n")
    text = refused(expand, {**written, "channels": ["flaire"]})
    assert "no column 'flaire'; did you mean flair?" in text
    assert "there is no table" in refused(expand, {"table": "case.csv"})


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    root = tmp_path / "bids"
    names = [f"sub-01/ses-{session}/anat/sub-01_ses-{session}" for session in ("pre", "post")]
    touch(root, *(f"{name}_T1w.nii.gz" for name in names))
    touch(root, f"{names[0]}_acq-fast_FLAIR.nii.gz", f"{names[0]}_acq-slow_FLAIR.nii.gz")
    touch(root, "sub-02/anat/sub-02_T1w.nii.gz", "sub-02/anat/sub-02_T1w.json", "participants.tsv")
    touch(root, "sub-03/func/sub-03_task-rest_bold.nii.gz")
    lesions = "derivatives/lesions"
    touch(root, *(f"{lesions}/{name}_label-lesion_mask.nii.gz" for name in names))
    touch(root, f"{lesions}/sub-02/anat/sub-02_label-lesion_mask.nii.gz")
    return root


def test_subjects_and_sessions_of_a_bids_tree(bids: Path, expand: Expand) -> None:
    reference = "derivatives/lesions/{subject}/{session}/anat/{id}_*_mask.nii.gz"
    cases = expand({"bids": "bids", "suffix": "T1w", "reference": reference})
    assert [case.id for case in cases] == ["sub-01_ses-post", "sub-01_ses-pre", "sub-02"]
    assert [case.patient for case in cases] == ["sub-01", "sub-01", "sub-02"]
    assert cases[2].image == (bids / "sub-02/anat/sub-02_T1w.nii.gz",)
    folder = bids / "derivatives/lesions/sub-01/ses-pre/anat"
    assert cases[1].reference == folder / "sub-01_ses-pre_label-lesion_mask.nii.gz"
    assert cases[2].reference == (
        bids / "derivatives/lesions/sub-02/anat/sub-02_label-lesion_mask.nii.gz"
    )
    chosen = expand({"bids": "bids", "suffix": "T1w", "session": "pre", "ids": "sub-01*"})
    assert [case.id for case in chosen] == ["sub-01_ses-pre"]


def test_several_suffixes_of_a_bids_tree_are_channels(bids: Path, expand: Expand) -> None:
    both = {"bids": str(bids), "suffix": ["T1w", "FLAIR"], "datatype": "anat"}
    assert "sub-01_ses-pre has two images FLAIR" in refused(expand, both)
    slow = {**both, "suffix": ["FLAIR", "T1w"], "entities": {"acq": "slow"}}
    assert "no subject has images with the suffix" in refused(expand, slow)
    touch(bids, "sub-01/ses-pre/anat/sub-01_ses-pre_acq-slow_T1w.nii.gz")
    (case,) = expand(slow)
    assert case.channels == ("FLAIR", "T1w")
    assert case.image[0].name == "sub-01_ses-pre_acq-slow_FLAIR.nii.gz"
    (bids / "sub-01/ses-pre/anat/sub-01_ses-pre_acq-fast_FLAIR.nii.gz").unlink()
    (bids / "sub-01/ses-pre/anat/sub-01_ses-pre_acq-slow_T1w.nii.gz").unlink()
    with pytest.warns(VoxplainWarning, match="2 of bids lack an image, the first is sub-01_ses-po"):
        assert [case.id for case in expand(both)] == ["sub-01_ses-pre"]


def test_mistakes_about_a_bids_tree(bids: Path, expand: Expand) -> None:
    assert "did you mean T1w?" in refused(expand, {"bids": "bids", "suffix": "T1"})
    text = refused(expand, {"bids": "bids", "suffix": "T1w", "reference": "derivatives/{id}.nii"})
    assert text.startswith("cases: sub-01_ses-post: no file fits the reference derivatives/sub-01_")
    assert "no BIDS tree" in refused(expand, {"bids": "bids/derivatives", "suffix": "T1w"})


def nnunet(folder: Path, **facts: Any) -> Path:
    root = folder / "Dataset001_Brain"
    stated = {
        "channel_names": {"0": "FLAIR", "1": "T1"},
        "labels": {"background": 0, "lesion": 1, "ignore": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
        **facts,
    }
    touch(root, "dataset.json")
    (root / "dataset.json").write_text(json.dumps(stated))
    touch(root, *(f"imagesTr/br_{case}_000{k}.nii.gz" for case in (1, 2) for k in (0, 1)))
    touch(root, *(f"labelsTr/br_{case}.nii.gz" for case in (1, 2)))
    touch(root, *(f"imagesTs/br_{case}_000{k}.nii.gz" for case in (3, 4) for k in (0, 1)))
    touch(root, "labelsTs/br_4.nii.gz")
    return root


def test_a_data_set_of_nnunet(
    tmp_path: Path, expand: Expand, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = nnunet(tmp_path)
    first, second = expand({"nnunet": "Dataset001_Brain"})
    assert (first.id, second.id) == ("br_1", "br_2")
    assert first.channels == ("FLAIR", "T1")
    assert first.image == tuple(root / f"imagesTr/br_1_000{k}.nii.gz" for k in (0, 1))
    assert (first.reference, first.reference_ignore) == (root / "labelsTr/br_1.nii.gz", 2)
    third, fourth = expand({"nnunet": "Dataset001_Brain", "split": "test"})
    assert (third.reference, third.reference_ignore) == (None, None)
    assert fourth.reference == root / "labelsTs/br_4.nii.gz"
    monkeypatch.setenv(RAW, str(tmp_path / "raw"))
    nnunet(tmp_path / "raw")
    (case,) = expand({"nnunet": "Dataset001", "split": "test", "limit": 1})
    assert case.image[0].parent == tmp_path / "raw/Dataset001_Brain/imagesTs"
    assert "no data set Dataset007; " in refused(expand, {"nnunet": "Dataset007"})


def test_data_sets_of_older_kind_and_of_pictures(tmp_path: Path, expand: Expand) -> None:
    root = nnunet(tmp_path, modality={"0": "CT", "1": "PET"}, channel_names=None, file_ending=None)
    stated = json.loads((root / "dataset.json").read_text())
    older = {name: value for name, value in stated.items() if value is not None}
    (root / "dataset.json").write_text(json.dumps(older))
    assert expand({"nnunet": str(root)})[0].channels == ("CT", "PET")
    colors = nnunet(
        tmp_path / "b", channel_names={"0": "R", "1": "G", "2": "B"}, file_ending=".png"
    )
    touch(colors, "imagesTr/road_0000.png", "labelsTr/road.png")
    (case,) = expand({"nnunet": str(colors)})
    assert (len(case.image), case.channels) == (1, ("R", "G", "B"))
    listed = {"x": {"images": ["imagesTr/br_1_0000.nii.gz", "imagesTr/br_1_0001.nii.gz"]}}
    (case,) = expand({"nnunet": str(nnunet(tmp_path / "c", dataset=listed))})
    assert (case.id, case.reference) == ("x", None)


def test_mistakes_about_a_data_set(tmp_path: Path, expand: Expand) -> None:
    root = nnunet(tmp_path)
    (root / "imagesTr/br_2_0001.nii.gz").unlink()
    text = refused(expand, {"nnunet": str(root)})
    assert "br_2: Dataset001_Brain has no file for channel 1 (T1), br_2_0001.nii.gz" in text
    (root / "labelsTr/br_1.nii.gz").unlink()
    text = refused(expand, {"nnunet": str(root), "ids": "br_1"})
    assert text == "cases: br_1: labelsTr has no br_1.nii.gz"
    (root / "dataset.json").write_text("{}")
    assert "not the dataset.json of nnU-Net" in refused(expand, {"nnunet": str(root)})
    (root / "dataset.json").unlink()
    assert "has no dataset.json" in refused(expand, {"nnunet": str(root)})


def test_sources_stand_beside_single_cases(
    tmp_path: Path, expand: Expand, bids: Path, table: Callable[..., Any]
) -> None:
    written = [
        {"id": "one", "image": "one.nii"},
        table("id,image\ntwo,a_t1.nii\n"),
        {"bids": "bids", "suffix": "T1w", "limit": 1},
        {"nnunet": nnunet(tmp_path).name, "ids": "*_2"},
    ]
    assert [case.id for case in expand(written)] == ["one", "two", "sub-01_ses-post", "br_2"]
    assert "two of them have the id 'one'" in refused(expand, [*written, written[0]])


def test_an_unknown_word_of_a_source_is_named(expand: Expand) -> None:
    text = refused(expand, {"table": "cases.csv", "chanels": ["t1"]})
    assert text == "cases[0].chanels: unknown parameter; did you mean channels?"
    assert refused(expand, "a.nii").startswith("cases[0]: 'a.nii' is no case; write image")


def test_what_the_page_shows_can_be_written() -> None:
    text = (Path(__file__).parents[3] / "docs" / "bulk.md").read_text("utf-8")
    rest = {"models": [{"name": "n", "factory": "a:b"}], "methods": ["saliency"]}
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    sources = {type(entry) for block in blocks for entry in _study(rest, block).cases}
    assert sources == {CaseConfig, CaseFolder, CaseTable, CaseBids, CaseNnunet}
    written = re.findall(r"^\| `(\{for_each.*?\})`", text, re.MULTILINE)
    targets = [yaml.safe_load(each) for each in written]
    study = Study.parse({**rest, "cases": {"image": "a.nii"}, "targets": targets})
    assert len({type(target) for target in study.all_targets}) == 3


def test_the_schema_knows_every_source_and_part_alone_and_in_a_list() -> None:
    schema = Study.model_json_schema(by_alias=True)
    *alone, several = schema["properties"]["cases"]["anyOf"]
    assert (alone, several["minItems"]) == (several["items"]["anyOf"], 1)
    assert {each["$ref"].rsplit("/")[-1] for each in alone} == {
        kind.__name__ for kind in (CaseConfig, CaseFolder, CaseTable, CaseBids, CaseNnunet)
    }
    targets = str(schema["properties"]["targets"])
    assert all(f"$defs/{name}'" in targets for name in ("EachComponent", "EachError", "EachClass"))


def _study(rest: dict[str, Any], block: str) -> Study:
    return Study.parse({**rest, "target": 1, **yaml.safe_load(block)})


@pytest.mark.slow
def test_thousands_of_cases_take_well_under_a_second_per_thousand(
    tmp_path: Path, expand: Expand
) -> None:
    (tmp_path / "images").mkdir()
    rows = ["id,flair,t1,reference"]
    for case in range(2000):
        touch(tmp_path / "images", *(f"{case}_{kind}.nii" for kind in ("flair", "t1", "seg")))
        files = ",".join(f"images/{case}_{kind}.nii" for kind in ("flair", "t1", "seg"))
        rows.append(f"p{case},{files}")
    (tmp_path / "cases.csv").write_text("\n".join(rows))
    start = time.perf_counter()
    assert len(expand({"table": "cases.csv"})) == 2000
    assert time.perf_counter() - start < 1.5
