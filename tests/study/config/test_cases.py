from pathlib import Path

import pytest
from pydantic import ValidationError

from voxplain.errors import ConfigError
from voxplain.study.config.cases import CaseConfig, expand_cases


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for patient in ("smith", "jones"):
        for kind in ("flair", "t1", "seg"):
            (tmp_path / f"{patient}_{kind}.nii.gz").touch()
    (tmp_path / "alone_flair.nii.gz").touch()
    return tmp_path


def test_a_pattern_without_id_numbers_its_cases_and_hides_the_names(folder: Path) -> None:
    cases = expand_cases([CaseConfig(image="*_t1.nii.gz")], folder)
    assert [case.id for case in cases] == ["case001", "case002"]
    assert [case.image[0].name for case in cases] == ["jones_t1.nii.gz", "smith_t1.nii.gz"]


def test_the_same_text_fills_every_file_of_a_case(folder: Path) -> None:
    entry = CaseConfig(id="p-*", image=["*_t1.nii.gz", "*_flair.nii.gz"], reference="*_seg.nii.gz")
    cases = expand_cases([entry], folder)
    assert [case.id for case in cases] == ["p-jones", "p-smith"]
    assert [path.name for path in cases[1].image] == ["smith_t1.nii.gz", "smith_flair.nii.gz"]
    assert cases[0].reference == folder / "jones_seg.nii.gz"


def test_a_repeated_star_is_the_same_text(tmp_path: Path) -> None:
    for name in ("a/a_t1.nii", "a/b_t1.nii", "b/b_t1.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    cases = expand_cases([CaseConfig(id="*", image="*/*_t1.nii")], tmp_path)
    assert [case.id for case in cases] == ["a", "b"]


def test_plain_cases_start_at_the_base_and_keep_their_ids(tmp_path: Path) -> None:
    cases = expand_cases(
        [CaseConfig(id="p01", image="x/a.nii"), CaseConfig(image="/abs/b.nii")], tmp_path
    )
    assert cases[0].image == (tmp_path / "x/a.nii",)
    assert (cases[1].id, cases[1].image) == ("case002", (Path("/abs/b.nii"),))


def test_a_pattern_that_fits_nothing_and_a_repeated_id_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no file fits"):
        expand_cases([CaseConfig(image="*_t7.nii")], folder)
    with pytest.raises(ConfigError, match="'p01'"):
        expand_cases([CaseConfig(id="p01", image="a"), CaseConfig(id="p01", image="b")], folder)
    with pytest.raises(ConfigError, match="names one file"):
        expand_cases([CaseConfig(id="p*", image="a.nii")], folder)


@pytest.mark.parametrize("bad", ["../up", "a/b", "", " x", ".hidden"])
def test_an_id_cannot_leave_its_folder(bad: str) -> None:
    with pytest.raises(ValidationError):
        CaseConfig(id=bad, image="a.nii")


def test_a_name_that_cannot_be_one_is_refused_in_words() -> None:
    with pytest.raises(ValidationError, match="letters, digits"):
        CaseConfig(patient="Müller, Jörg / 7", image="a.nii")
    with pytest.raises(ValidationError, match="7 is a number; in quotes"):
        CaseConfig.model_validate({"id": 7, "image": "a.nii"})


@pytest.mark.parametrize("count", [1, 12, 1001])
def test_cases_without_names_are_numbered_from_one(tmp_path: Path, count: int) -> None:
    entries = [CaseConfig(image=(f"{number}.nii",)) for number in range(count)]  # type: ignore[arg-type]
    width = 3 if count < 1000 else 4
    ids = [case.id for case in expand_cases(entries, tmp_path)]
    assert ids == [f"case{number:0{width}d}" for number in range(1, count + 1)]
    named = expand_cases([CaseConfig(id="x", image=("x.nii",)), *entries[:2]], tmp_path)  # type: ignore[arg-type]
    assert [case.id for case in named] == ["x", "case002", "case003"][: len(named)]
