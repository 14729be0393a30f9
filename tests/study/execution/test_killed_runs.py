"""A run that is killed at random moments: resumed, it gives what an undisturbed one gives."""

from __future__ import annotations

import random
import shutil
import sys
import time

import pytest
from forked_run import finished, forked_run
from killed import KILLS, done, require_kept, require_whole_files, results, work
from tiny import TinyStudy


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_run_that_is_killed_twenty_times_ends_as_if_undisturbed(tiny: TinyStudy) -> None:
    tiny.write(**work(steps=4), run={"workers": 0})
    undisturbed = finished(tiny.file, tiny.folder / "first")
    start = time.monotonic()
    assert finished(tiny.file, tiny.folder / "second") == undisturbed
    seconds = time.monotonic() - start
    draw, kills, resumed = random.Random(1), 0, 0
    while kills < KILLS:
        before = done(tiny.run)
        process = forked_run(tiny.file, tiny.run)
        process.join(draw.uniform(0, seconds))
        process.kill()
        process.join()
        require_whole_files(tiny.run)
        require_kept(tiny.run, before)
        if process.exitcode != 0:
            kills += 1
            continue
        assert results(tiny.run) == undisturbed
        resumed += bool(before)
        shutil.rmtree(tiny.run)  # there is more to do, and to kill
    before = done(tiny.run)
    assert finished(tiny.file, tiny.run) == undisturbed
    require_kept(tiny.run, before)
    assert resumed
