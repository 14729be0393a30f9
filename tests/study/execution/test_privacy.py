import json
from pathlib import Path

import pytest

from voxplain.study.execution.events import EventLog
from voxplain.study.execution.privacy import Redactor


@pytest.mark.parametrize(
    "text",
    [
        "/data/ward/SMITH_JOHN.nii.gz is truncated",
        "SMITH_JOHN.nii.gz: truncated",
        "cannot open 'scans/SMITH_JOHN.nii.gz'",
        "file SMITH^IM0001 of the series",
        "see /home/SMITH/log.txt for more",
        r"see C:\Users\SMITH\log.txt for more",
    ],
)
def test_no_source_name_and_no_path_passes(tmp_path: Path, text: str) -> None:
    series = tmp_path / "series"
    series.mkdir()
    (series / "SMITH^IM0001").touch()
    private = Redactor([Path("/data/ward/SMITH_JOHN.nii.gz"), series])
    assert "SMITH" not in private(text)


def test_words_that_are_also_files_beside_the_study_stay(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    private = Redactor([tmp_path / "scan.nii"], base=tmp_path)
    assert private("run again with --debug") == "run again with --debug"
    assert str(tmp_path) not in private(f"in {tmp_path}: scan.nii")


def test_uids_go_and_plain_sentences_stay() -> None:
    private = Redactor([Path("/data/ct.nii.gz")])
    assert private("series 1.2.840.113619.2.5.1762583153") == "series <uid>"
    sentence = "class 3 is predicted nowhere; predicted are: 0 (12 voxels), 1.5 mm, 1/2"
    assert private(sentence) == sentence


def test_events_are_json_lines_without_names_and_dates(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl", Redactor([Path("/d/SMITH.nii")]))
    log.add("task failed", reason='"/d/SMITH.nii" is\nbroken', passes=3)
    log.add("finished", failed=1)
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert first["event"] == "task failed"
    assert first["passes"] == 3
    assert "SMITH" not in lines[0]
    assert 0 <= first["seconds"] <= second["seconds"] < 60


def test_the_longest_name_goes_as_a_whole(tmp_path: Path) -> None:
    """A name that begins with another one leaves nothing of itself."""
    names = ["DOE", "DOE-1950", "DOE-1950.nii", "DOE-1950.nii.gz"]
    for order in (names, names[::-1]):
        private = Redactor([Path("/data") / name for name in order])
        for name in names:
            assert private(f"{name}: truncated") == "<file>: truncated"
