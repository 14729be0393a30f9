"""The remaining time of a run, in closed form."""

from __future__ import annotations

import pytest

from voxplain.study.execution.pace import ExpectedTask, Pace

FAST, SLOW = ("small", "maps"), ("large", "maps")


def pace(workers: int = 1) -> Pace:
    tasks = {f"f{number}": ExpectedTask(FAST, 2.0) for number in range(4)}
    return Pace({**tasks, "s": ExpectedTask(SLOW, 10.0)}, workers)


def test_the_probe_tells_what_is_left_until_a_task_has_ended() -> None:
    assert pace().left == pytest.approx(18.0)


def test_tasks_correct_those_of_their_network_and_kind() -> None:
    judged = pace()
    judged.ended("f0", 6.0)  # three times what was expected
    assert judged.left == pytest.approx(3 * (6.0 + 10.0))  # of the large one nothing is known
    judged.ended("s", 5.0)
    assert judged.left == pytest.approx(3 * 6.0)


def test_workers_share_what_is_left_but_no_task() -> None:
    judged = pace(workers=3)
    assert judged.left == pytest.approx(18.0 / 3)
    for name in ("f0", "f1", "f2", "f3"):
        judged.ended(name, 2.0)
    assert judged.left == pytest.approx(10.0)  # one worker has it
    judged.ended("s", 10.0)
    assert judged.left == 0.0


def test_a_task_counts_once() -> None:
    judged = pace()
    judged.ended("f0", 2.0)
    judged.ended("f0", 200.0)
    judged.ended("unknown", 200.0)
    assert judged.left == pytest.approx(16.0)


def test_tasks_of_which_nothing_is_known_take_no_time() -> None:
    assert Pace({"a": ExpectedTask(FAST, 0.0)}, 2).left == 0.0
