"""The cache of regions: limits, order of removal, keys and threads."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import pytest
import torch
from threads import in_threads
from torch import Tensor

from voxplain.regions import scales, segment
from voxplain.regions.cache import RegionCache


@dataclass(frozen=True, eq=False)
class Result:
    number: int
    nbytes: int


class RecordedCache:
    """A cache that records the numbers of the images for which it computes a result."""

    def __init__(self, limit: int, nbytes: int = 20) -> None:
        self.cache: RegionCache[Result] = RegionCache(limit)
        self.computed: list[int] = []
        self.nbytes = nbytes

    def __call__(self, number: int) -> Result:
        def compute() -> Result:
            self.computed.append(number)
            return Result(number, self.nbytes)

        return self.cache.get("settings", torch.full((2, 5, 5), float(number)), compute)


def test_the_least_recently_used_result_is_dropped_first() -> None:
    recorded = RecordedCache(limit=50)
    assert [recorded(number).number for number in (1, 2, 1, 3, 1, 2)] == [1, 2, 1, 3, 1, 2]
    assert recorded.computed == [1, 2, 3, 2]


def test_the_limit_holds_for_the_sum_of_bytes() -> None:
    recorded = RecordedCache(limit=100)
    for number in range(10):
        recorded(number)
        assert recorded.cache.nbytes == 20 * min(5, number + 1)


def test_a_result_above_the_limit_is_kept_while_in_use_and_drops_no_other() -> None:
    recorded = RecordedCache(limit=50)
    recorded(1)
    recorded.nbytes = 51
    held = recorded(2)
    assert recorded(2) is held
    del held
    gc.collect()
    recorded(2)
    recorded(1)
    assert recorded.computed == [1, 2, 2]
    assert recorded.cache.nbytes == 20


def test_another_image_type_or_setting_is_another_entry() -> None:
    cache: RegionCache[Result] = RegionCache(1000)
    image = torch.arange(8.0).view(1, 2, 4)
    images = [image, image.double(), image.view(2, 1, 4), image + 1]
    results = [cache.get("a", each, lambda: Result(0, 1)) for each in images]
    results.append(cache.get("b", image, lambda: Result(0, 1)))
    assert len({id(result) for result in results}) == 5
    assert cache.get("a", image.clone(), lambda: Result(0, 1)) is results[0]


def test_an_error_is_not_kept() -> None:
    recorded, image = RecordedCache(limit=50), torch.zeros(1, 2, 2)

    def fails() -> Result:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        recorded.cache.get("settings", image, fails)
    assert recorded.cache.get("settings", image, lambda: Result(3, 1)).number == 3


def test_threads_may_share_a_cache() -> None:
    recorded = RecordedCache(limit=50)

    def work() -> list[int]:
        return [recorded(number % 7).number for number in range(200)]

    for numbers in in_threads([work] * 4):
        assert numbers == [number % 7 for number in range(200)]
    assert recorded.cache.nbytes <= 50


@pytest.mark.parametrize("divide", [lambda image: segment(9, image), scales])
def test_real_regions_know_their_bytes(divide: object) -> None:
    image = torch.randn(1, 20, 20)
    regions = divide(image)  # type: ignore[operator]
    labels: Tensor = regions.labels if hasattr(regions, "labels") else regions.cells
    assert regions.nbytes >= labels.numel() * 8
    assert divide(image.clone()) is regions  # type: ignore[operator]
