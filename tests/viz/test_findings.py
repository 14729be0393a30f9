"""Regions and channels by name, with bars."""

from __future__ import annotations

import pytest

from voxplain.viz.findings import _table


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([4.0, 1.0], ["left:0;width:100.0%", "left:0;width:25.0%"]),
        ([-4.0, 1.0], ["left:0.0%;width:50.0%", "left:50.0%;width:12.5%"]),
        ([-4.0, -1.0], ["left:0.0%;width:50.0%", "left:37.5%;width:12.5%"]),
        ([0.0, 0.0], ["left:0;width:0.0%", "left:0;width:0.0%"]),
    ],
)
def test_bars_are_in_units_of_the_strongest_of_either_sign(
    values: list[float], bars: list[str]
) -> None:
    entries = [{"name": f"r{number}", "value": value} for number, value in enumerate(values)]
    table = _table("regions", entries)
    rows = [row.bar.replace("left:50%", "left:50.0%") for row in table.rows]
    assert rows == bars
    assert [row.positive for row in table.rows] == [value >= 0 for value in values]
