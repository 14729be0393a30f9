import signal
import threading
import time

import pytest
import torch

from voxplain.errors import InputError, VoxplainWarning, is_out_of_memory
from voxplain.study.planning.time_limit import in_words, reason_of, time_limit


def test_a_time_limit_ends_what_runs_and_leaves_no_alarm() -> None:
    before = signal.getsignal(signal.SIGALRM)
    start = time.perf_counter()
    with pytest.raises(TimeoutError), time_limit(0.05):
        _forever()
    assert time.perf_counter() - start < 2
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def _forever() -> None:
    while True:
        torch.ones(8) + 1


def test_no_limit_and_a_generous_one_change_nothing() -> None:
    with time_limit(None), time_limit(60):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 50
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_outside_the_main_thread_the_limit_is_said_not_to_hold() -> None:
    caught: list[str] = []

    def work() -> None:
        with pytest.warns(VoxplainWarning, match="main thread"), time_limit(0.01):
            time.sleep(0.05)
        caught.append("finished")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert caught == ["finished"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("the scan is empty"), "the scan is empty"),
        (MemoryError(), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "out of memory"),
        (TimeoutError(), "not done after its time limit of 1 min 30 s"),
        (OSError("/home/smith/scan.nii"), "OSError (voxplain --debug shows where)"),
    ],
)
def test_reasons_are_words_and_hold_no_foreign_text(error: Exception, words: str) -> None:
    reason = reason_of(error, 90)
    assert reason.startswith(words)
    assert "smith" not in reason


def test_the_allocator_of_torch_is_recognized() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.44, "0.4 s"),
        (12.2, "12 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (59.7, "1 min 0 s"),
    ],
)
def test_durations_read_well(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
