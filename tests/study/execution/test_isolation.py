"""Tasks in worker processes: what never returns, eats memory, crashes, leaves or raises costs
nobody else anything, and is recorded with its reason."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from faults import faulty, install, said, start
from tiny import TinyStudy

from voxplain.records.manifest import TaskRecord
from voxplain.records.outcome import outcome_file, read_manifest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"),
]

LIMIT = 4.0


@pytest.fixture
def one(tiny: TinyStudy) -> TinyStudy:
    """One case, and the package of faults."""
    install(tiny)
    tiny.write(cases=tiny.config["cases"][:1])
    return tiny


def failed(run: Path) -> dict[str, TaskRecord]:
    """The tasks that failed, by the label of their method."""
    return {task.methods[0]: task for task in read_manifest(run).failed}


def test_every_fault_is_recorded_and_all_others_are_done(one: TinyStudy) -> None:
    faults = ["spins", "holds", "eats", "crashes", "leaves", "raises", "once"]
    methods = ["saliency", *(faulty(how, 3 + number) for number, how in enumerate(faults))]
    one.write(
        methods=[*methods, {"name": "occlusion", "window": 6, "stride": 6}],
        run={"workers": 1, "timeout": LIMIT, "memory": "1.5GB"},
    )
    code, text = said(one, "run", "study.yaml")
    assert code == 1, text
    wrong = failed(one.run)
    assert set(wrong) == {"spins", "holds", "eats", "crashes", "leaves", "raises"}, text
    reasons = {how: str(task.reason) for how, task in wrong.items()}
    assert "not done after its time limit of 4.0 s" in reasons["spins"]
    assert "not done after its time limit of 4.0 s" in reasons["holds"]
    assert "out of memory" in reasons["eats"]
    assert "run.memory allows 1.5 GB" in reasons["eats"]
    assert "crashed (SIGSEGV)" in reasons["crashes"]
    assert "exit code 3" in reasons["leaves"]
    assert "ValueError" in reasons["raises"]
    attempts = {how: task.attempts for how, task in wrong.items()}
    assert attempts == {"spins": 1, "holds": 1, "eats": 2, "crashes": 2, "leaves": 2, "raises": 1}
    done = {task.methods[0]: task for task in read_manifest(one.run).tasks if task.status == "done"}
    assert {"saliency", "occlusion", "once"} == set(done)
    assert done["once"].attempts == 2
    for how in ("spins", "holds"):
        assert LIMIT <= wrong[how].seconds < LIMIT + 2
    for how, word in (("holds", "fault"), ("crashes", "string_at"), ("raises", "ValueError")):
        log = outcome_file(one.run, wrong[how]).with_suffix(".log").read_text()
        assert word in log
        assert "faulty.py" in log
        assert str(one.folder) not in log
    page = (one.run / "report.html").read_text()
    assert all(reason in page for reason in ("crashed (SIGSEGV)", "exit code 3"))
    assert "crashed (SIGSEGV)" in text


def test_a_metric_that_goes_wrong_leaves_the_others_of_its_task(one: TinyStudy) -> None:
    metrics = [
        "sparseness",
        {"name": "faulty_metric", "how": "crashes"},
        {"name": "faulty_metric", "how": "holds"},
        "entropy",
    ]
    one.write(metrics=metrics, run={"workers": 1, "timeout": LIMIT, "controls": False})
    code, text = said(one, "run", "study.yaml")
    assert code == 1
    (record,) = read_manifest(one.run).failed
    assert "faulty_metric: its process crashed (SIGSEGV)" in str(record.reason), text
    assert "faulty_metric: not done after its time limit" in str(record.reason)
    from voxplain.records.scores import Scores

    rows = Scores.read(one.run / "metrics.parquet")
    for row in rows:
        assert (row.reason == "") == (row.metric != "faulty_metric"), row
    assert {row.metric for row in rows} == {"sparseness", "faulty_metric", "entropy"}


def test_workers_do_not_change_a_bit(tiny: TinyStudy) -> None:
    methods = [
        "saliency",
        {"name": "smoothgrad", "of": "saliency", "samples": 3},
        {"name": "occlusion", "window": 6, "stride": 6},
    ]
    for workers in ("0", "1", "2"):
        tiny.write(methods=methods, metrics=["sparseness"], output=f"run{workers}")
        code, text = said(tiny, "run", "study.yaml", "--workers", workers)
        assert code == 0, text
    here = tiny.folder / "run0"
    names = [str(file.relative_to(here)) for file in here.rglob("*.nii.gz")]
    assert len(names) == 2 * (3 + 2)
    for name in [*names, "metrics.parquet"]:
        expected = (here / name).read_bytes()
        assert (tiny.folder / "run1" / name).read_bytes() == expected
        assert (tiny.folder / "run2" / name).read_bytes() == expected
    assert said(tiny, "compare", "run1", "run2") == (0, "same      6 of 6 maps\n")
    code, text = said(tiny, "status", "run2", "--json")
    assert code == 0
    assert json.loads(text)["done"] == 8


def test_an_interrupt_ends_a_run_and_the_second_one_ends_it_now(one: TinyStudy) -> None:
    one.write(methods=["saliency", faulty("spins", 3)], run={"workers": 1})
    process = start(one, "run", "study.yaml")
    while not (one.run / "events.jsonl").exists() or "spins" not in _events(one):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None  # it waits for the task
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "Ctrl-C again" in err
    assert "the same command resumes the run" in err
    _, alive = psutil.wait_procs(workers, timeout=3)
    assert not alive
    states = {task.methods[0]: task.status for task in read_manifest(one.run).tasks}
    assert states["spins"] == "pending"
    assert said(one, "status", "run")[0] == 1


def _events(tiny: TinyStudy) -> str:
    return (tiny.run / "events.jsonl").read_text()
