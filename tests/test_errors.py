"""Warnings that are ignored for a while, in several threads."""

from __future__ import annotations

import time
import warnings

import pytest
from threads import in_threads

from voxplain.errors import without_warnings


def test_threads_leave_the_filters_as_they_were() -> None:
    def work() -> None:
        for _ in range(20):
            with without_warnings(RuntimeWarning):
                time.sleep(1e-4)
                warnings.warn("of a library", RuntimeWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        in_threads([work] * 4)
        assert list(warnings.filters) == before
        with pytest.raises(UserWarning), without_warnings(RuntimeWarning):
            warnings.warn("of another kind", UserWarning, stacklevel=1)
