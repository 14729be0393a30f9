"""Running work in several threads at once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def in_threads(works: Sequence[Callable[[], T]], timeout: float = 60) -> list[T]:
    """Starts one thread per piece of work at the same moment; what they return, in order.

    Raises:
        BaseException: The first one that any of them raised.
    """
    start, errors = threading.Barrier(len(works)), list[BaseException]()
    results: dict[int, T] = {}

    def run(number: int) -> None:
        try:
            start.wait()
            results[number] = works[number]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    with _often_switched():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout)
    assert not any(thread.is_alive() for thread in threads), "a thread waits for another one"
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(works))]


def in_thread(work: Callable[[], T]) -> T:
    """What work returns in another thread, while this one waits."""
    return in_threads([work])[0]


@contextmanager
def _often_switched() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
