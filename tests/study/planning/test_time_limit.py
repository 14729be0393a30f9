import errno
import signal
import threading
import time

import pytest
import torch

from voxplain.errors import (
    ConfigError,
    InputError,
    ModelError,
    VoxplainWarning,
    is_out_of_memory,
)
from voxplain.extents import resolve
from voxplain.models.model import Model
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


def raised(code: str, **names: object) -> BaseException:
    """What a function of a plug-in raises."""
    space: dict[str, object] = {"__name__": "plugin", **names}
    exec(code, space)
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        space["fails"]()  # type: ignore[operator]
    return caught.value


def test_texts_of_plug_ins_are_named_by_their_type() -> None:
    code = "def fails():\n    raise InputError('cannot open the scan of DOE JANE')"
    error = raised(code, InputError=InputError)
    assert reason_of(error, None) == "InputError (voxplain --debug shows where)"
    quoting = ModelError("the network fails (KeyError: 'DOE JANE'); pad it")
    quoting.__cause__ = raised("def fails():\n    raise KeyError('DOE JANE')")
    assert reason_of(quoting, None) == "the network fails (KeyError); pad it"


def test_texts_of_voxplain_and_torch_stay() -> None:
    with pytest.raises(ModelError) as caught:
        Model(torch.nn.Conv2d(3, 1, 1))(torch.zeros(1, 1, 4, 4))
    assert "expected input" in reason_of(caught.value, None)
    with pytest.raises(ConfigError) as refused:
        resolve("8mm", (4, 4), None)
    assert "pixel size" in reason_of(refused.value, None)


def test_the_system_is_quoted_without_its_path() -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "/home/smith/map.nii.gz")
    assert reason_of(error, None) == "OSError: no space left on device"
