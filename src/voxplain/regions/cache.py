"""Remembers what was last computed of an image, by the content of the image."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _CachedRegions(Generic[T]):
    found: T
    voxels: int


class RegionCache(Generic[T]):
    """The last results; segments cost seconds, and every map of an image wants the same.

    Args:
        voxels: How many those of the kept images have together; the last one is always kept.
    """

    def __init__(self, voxels: int = 2**26) -> None:
        self._voxels = voxels
        self._kept: OrderedDict[Hashable, _CachedRegions[T]] = OrderedDict()
        self._lock = Lock()

    def of(self, asked: Hashable, image: Tensor, compute: Callable[[], T]) -> T:
        """What was asked of an image ``(C, *spatial)``, computed if it is not there."""
        key = (asked, str(image.device), _content(image))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key].found
        entry = _CachedRegions(compute(), image[0].numel())
        with self._lock:
            self._kept[key] = entry
            while len(self._kept) > 1 and self._total > self._voxels:
                self._kept.popitem(last=False)
        return entry.found

    @property
    def _total(self) -> int:
        return sum(entry.voxels for entry in self._kept.values())


def _content(image: Tensor) -> str:
    values = image.detach().cpu().contiguous().numpy()
    digest = hashlib.blake2b(values.tobytes(), digest_size=16)
    digest.update(f"{values.dtype}{values.shape}".encode())
    return digest.hexdigest()
