"""Which tasks a run does, by patterns and by what became of them before."""

from __future__ import annotations

from typing import Any

import pytest

from voxplain.records.manifest import TaskRecord
from voxplain.study import Selection


def task(**changes: Any) -> TaskRecord:
    facts: dict[str, Any] = {
        "key": "0" * 64,
        "case": "p01",
        "model": "unet",
        "target": "1",
        "methods": ["saliency", "layer/cam"],
    }
    return TaskRecord(**(facts | changes))


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        ("", True),
        ("p01", True),
        ("p02", False),
        ("p*/unet", True),
        ("p01/net", False),
        ("P01", False),
        ("*/*/1/saliency", True),  # one of its methods is enough
        ("*/*/1/layer/cam", True),  # a name may hold a slash
        ("*/*/1/layer", False),
        ("*/*/2/saliency", False),
        ("*/*/*/*cam", True),
        ("*/*/*/rise", False),
    ],
)
def test_patterns_name_case_network_target_and_one_of_the_methods(
    pattern: str, taken: bool
) -> None:
    assert Selection(pattern).takes(task()) is taken


@pytest.mark.parametrize(
    ("status", "taken"), [("failed", True), ("pending", False), ("done", False)]
)
def test_only_what_failed_is_tried_again(status: str, taken: bool) -> None:
    assert Selection(only_failed=True).takes(task(status=status)) is taken
    assert not Selection("p02", only_failed=True).takes(task(status=status))


def test_analyses_alone_leave_maps_out() -> None:
    selection = Selection(analyses=frozenset({"dissection"}))
    assert selection.takes(task(kind="analysis", methods=["dissection"]))
    assert not selection.takes(task(kind="analysis", methods=["trails"]))
    assert not selection.takes(task(methods=["dissection"]))
