"""Disks that are full or read-only, as a user meets them: one sentence, and no finished map lost.

The superuser may write wherever permissions forbid it, so that real disks are mounted, in a mount
namespace of their own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import TinyStudy, write_tiny

from voxplain.records.manifest import Manifest

_COMMAND = "from voxplain.cli import main; main()"


def _may_mount() -> bool:
    try:
        mount = "mount -t tmpfs -o size=64k tmpfs /mnt"
        tried = subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, timeout=9)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _may_mount(), reason="this process may not mount disks of its own"),
]


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyStudy:
    return write_tiny(tmp_path, monkeypatch)


def on_disk(tiny: TinyStudy, mount: str, after: str = "true") -> tuple[int, str]:
    """The exit code and the errors of a run to ``disk/run``, where a disk is mounted."""
    disk = tiny.folder / "disk"
    disk.mkdir(exist_ok=True)
    run = f'{sys.executable} -c "{_COMMAND}" run {tiny.file} -o {disk}/run'
    script = f"set -e; {mount.format(disk=disk)}; set +e; {run}; code=$?; {after}; exit $code"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], env=tiny.environment, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def one_sentence(errors: str) -> str:
    assert "Traceback" not in errors
    (sentence,) = [line for line in errors.splitlines() if line.startswith("error ")]
    return sentence


READ_ONLY = "mount --bind {disk} {disk}; mount -o remount,ro,bind {disk}"


def test_a_read_only_folder(tiny: TinyStudy) -> None:
    code, errors = on_disk(tiny, READ_ONLY)
    assert code in (1, 2)
    assert "Read-only file system" in one_sentence(errors)
    assert not list((tiny.folder / "disk").iterdir())


def test_a_run_on_a_disk_that_became_read_only(tiny: TinyStudy) -> None:
    assert on_disk(tiny, "true")[0] == 0
    before = tiny.files(tiny.folder / "disk")
    tiny.write(methods=["saliency", "input_x_gradient"])
    code, errors = on_disk(tiny, READ_ONLY)
    assert code in (1, 2)
    assert "Read-only file system" in one_sentence(errors)
    assert tiny.files(tiny.folder / "disk") == before


@pytest.mark.parametrize("blocks", [1, 16])
def test_a_disk_that_fills_up(tiny: TinyStudy, blocks: int) -> None:
    """Of four KiB each; what was finished is taken up by a run where there is more space."""
    disk, kept = tiny.folder / "disk", tiny.folder / "kept"
    mount = f"mount -t tmpfs -o size={4 * blocks}k tmpfs {{disk}}"
    code, errors = on_disk(tiny, mount, f"cp -a {disk} {kept}")
    assert code == 1
    assert "No space left on device" in one_sentence(errors)
    finished = [line for line in errors.splitlines() if line.startswith("done ")]
    assert bool(finished) == (blocks > 1)
    shutil.copytree(kept, disk, dirs_exist_ok=True)
    maps = {file: time for file, time in tiny.files(disk).items() if file.endswith("_attr.nii.gz")}
    assert len(maps) >= len(finished)
    code, errors = on_disk(tiny, "true")
    assert code == 0
    now = tiny.files(disk)
    assert sum(now[file] == time for file, time in maps.items()) >= len(finished)
    assert len(Manifest.read(disk / "run").maps) == 4
