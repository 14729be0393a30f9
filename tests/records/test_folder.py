"""Nothing is written out of a run directory, and nothing of a user's is removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from voxplain.errors import InputError
from voxplain.records.folder import is_left_by_system, refuse_links, sweep
from voxplain.records.manifest import CaseRecord, MapRecord

LEFT = ".tmp-0123456789abcdef"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    for name in ("maps/a/net", "images", "notes"):
        (folder / name).mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    "name", [".lock", "events.jsonl", "maps/a/net/x.nii.gz", "maps/b", "figures"]
)
def test_links_where_a_run_writes_are_refused(run: Path, tmp_path: Path, name: str) -> None:
    refuse_links(run)
    (run / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"{name}, a symbolic link"):
        refuse_links(run)


def test_links_in_a_users_own_folders_do_no_harm(run: Path, tmp_path: Path) -> None:
    (run / "notes/link").symlink_to(tmp_path)
    refuse_links(run)
    refuse_links(run / "nowhere")


def test_only_what_a_killed_run_left_is_swept(run: Path, tmp_path: Path) -> None:
    kept = [run / "notes" / LEFT, run / ".tmp-mine", run / "maps/.tmp-mine.txt"]
    gone = [run / LEFT, run / "maps/a/net" / LEFT, run / "images" / LEFT]
    for file in (*kept, *gone):
        file.write_text("x")
    sweep(run)
    assert [file.exists() for file in kept] == [True] * 3
    assert [file.exists() for file in gone] == [False] * 3


def test_what_systems_leave() -> None:
    assert all(map(is_left_by_system, (".DS_Store", "Thumbs.db", LEFT)))
    assert not any(map(is_left_by_system, ("thesis.txt", ".tmp-mine", "study.yaml")))


@pytest.mark.parametrize(
    "file", ["/etc/passwd", "../x.nii", "maps/../../x", "C:\\x", "a\\..\\..\\x"]
)
def test_a_record_names_no_file_outside(file: str) -> None:
    def record(file: str) -> MapRecord:
        names = {"case": "a", "model": "m", "target": "1", "label": "s", "method": "s"}
        return MapRecord(file=file, sidecar="maps/s.json", **names)

    assert record("maps/s.nii.gz").file == "maps/s.nii.gz"
    with pytest.raises(ValueError, match="leads out of the run directory"):
        record(file)


def image_of(file: str) -> str:
    record = CaseRecord(
        id="a", image_sha256="", image=file, shape=(1,), spacing=(1,), unit="mm", orientation="",
        channels=("a",),
    )  # fmt: skip
    return record.image


@pytest.mark.parametrize(
    "file", ["..\\x.nii", "maps\\..\\..\\x.nii", "maps/..\\../x", "C:x", "\\x", "a/.."]
)
def test_the_separators_of_another_system_lead_nowhere_either(file: str) -> None:
    with pytest.raises(ValueError, match="leads out of the run directory"):
        image_of(file)


@pytest.mark.parametrize("file", ["maps/a..b.nii", "..a/b", "a.../b"])
def test_dots_inside_of_a_name_lead_nowhere(file: str) -> None:
    assert image_of(file) == file
