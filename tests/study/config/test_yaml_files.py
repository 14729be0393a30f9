from pathlib import Path

import pytest

from voxplain.errors import ConfigError
from voxplain.study.config import yaml_files
from voxplain.study.config.yaml_files import read_mapping


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_yaml_and_json_of_the_same_study_are_equal(tmp_path: Path) -> None:
    as_yaml = written(tmp_path, "a.yaml", "cases: [{id: p01}]\nrun: {seed: 3}\n")
    as_json = written(tmp_path, "a.json", '{"cases": [{"id": "p01"}], "run": {"seed": 3}}')
    assert read_mapping(as_yaml) == read_mapping(as_json) == {
        "cases": [{"id": "p01"}],
        "run": {"seed": 3},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("s.yaml", "cases: [\n", "s.yaml, line 2"),
        ("s.yaml", "a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is written twice"),
        ("s.yaml", "run: {seed: 1, seed: 2}\n", "the key 'seed' is written twice"),
        ("s.json", '{"cases": }', "s.json, line 1"),
        ("s.yaml", "", "found nothing"),
        ("s.yaml", "- a\n- b\n", "found a list"),
        ("s.yaml", "a: !!python/object/apply:os.system ['true']\n", "s.yaml, line 1"),
    ],
)
def test_a_broken_file_is_named_with_its_line(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_mapping(written(tmp_path, name, text))
    assert words in str(caught.value)


def test_a_missing_file_a_folder_and_bytes_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such study file"):
        read_mapping(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        read_mapping(tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match="not a text file"):
        read_mapping(tmp_path / "b.yaml")


NINES = "\n".join(
    ["a: &a [x, x, x, x, x, x, x, x, x]"]
    + [
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]"
        for old, new in zip("abcdefghi", "bcdefghij", strict=True)
    ]
)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("s.yaml", "? [a]\n: b\n", "line 1: a list or mapping stands as a key"),
        ("s.yaml", "x: 2026-99-99", "a value that cannot be read"),
        ("s.yaml", "a: !!timestamp 0000-00-00", "a value that cannot be read"),
        ("s.yaml", "cases: " + "9" * 5000, "a value that cannot be read"),
        ("s.json", '{"cases": ' + "9" * 5000 + "}", "a value that cannot be read"),
        ("s.yaml", "{" * 5000, "nested too deep"),
        ("s.json", "[" * 200_000, "nested too deep"),
        ("s.yaml", NINES, "more than 1,000,000 values, its aliases filled in"),
        ("s.yaml", "a: &a [*a]", "an alias stands inside of what it is an alias of"),
        ("s.yaml", "a: &a {b: *a}", "an alias stands inside of what it is an alias of"),
    ],
)
def test_odd_files_are_a_sentence(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        read_mapping(written(tmp_path, name, text))
    assert len(str(caught.value)) < 300


def test_aliases_of_a_person_are_taken(tmp_path: Path) -> None:
    text = "a: &steps [{kind: spacing, size: 1}]\nb: *steps\nc: *steps\n"
    found = read_mapping(written(tmp_path, "s.yaml", text))
    assert found["a"] == found["b"] == found["c"] == [{"kind": "spacing", "size": 1}]


def test_a_file_that_no_person_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_files, "LARGEST", 10)
    with pytest.raises(ConfigError, match="12 bytes, and a study has 10 at most"):
        read_mapping(written(tmp_path, "s.yaml", "cases: [abc]"))
