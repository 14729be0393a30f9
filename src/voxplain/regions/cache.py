"""A cache of regions by the content of the image."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

from torch import Tensor


class HasBytes(Protocol):
    """A result whose memory is known."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""


T = TypeVar("T", bound=HasBytes)

_LIMIT = 128 * 2**20


class RegionCache(Generic[T]):
    """Results per image, so that the methods that explain an image divide it once.

    What was used least recently is dropped first. A result beyond the limit is found as long as
    someone holds it. Threads may share a cache.

    Args:
        limit: Bytes of all results that are kept.
    """

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._alive: WeakValueDictionary[Hashable, T] = WeakValueDictionary()
        self._lock = Lock()

    def get(self, settings: Hashable, image: Tensor, compute: Callable[[], T]) -> T:
        """The result for an image, computed if it is not there.

        Args:
            settings: Whatever the result depends on beside the image.
            image: ``(C, *spatial)``.
            compute: Called without arguments.
        """
        key = (settings, str(image.device), _content(image))
        with self._lock:
            result = self._alive.get(key)
        if result is None:
            result = compute()
        with self._lock:
            self._keep(key, result)
        return result

    @property
    def nbytes(self) -> int:
        """Bytes of the results that are kept."""
        return sum(result.nbytes for result in self._kept.values())

    def _keep(self, key: Hashable, result: T) -> None:
        self._alive[key] = result
        if result.nbytes > self._limit:
            return
        self._kept[key] = result
        self._kept.move_to_end(key)
        while self.nbytes > self._limit:
            self._kept.popitem(last=False)


def _content(image: Tensor) -> str:
    values = image.detach().cpu().contiguous().numpy()
    digest = hashlib.blake2b(values.tobytes(), digest_size=16)
    digest.update(f"{values.dtype}{values.shape}".encode())
    return digest.hexdigest()
