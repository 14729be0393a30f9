from pathlib import Path

import pytest

from voxplain.errors import ConfigError
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
