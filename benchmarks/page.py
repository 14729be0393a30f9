"""Tables on the terminal and between the markers of ``docs/benchmarks.md``."""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.harness import Timing

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


@dataclass(frozen=True)
class Table:
    """What one comparison found.

    Attributes:
        name: Of the markers on the page.
        header: Column titles.
        rows: As text.
        notes: Sentences below the table.
    """

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """The table with what it was measured on."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join([table, *self.notes, f"*{measured_on()}*"])


def show(table: Table) -> None:
    """Prints a table."""
    drawn = RichTable(*table.header, title=table.name)
    for row in table.rows:
        drawn.add_row(*row)
    console = Console(width=140)
    console.print(drawn)
    for note in (*table.notes, measured_on()):
        console.print(note)


def publish(table: Table, page: Path = PAGE) -> None:
    """Puts a table between its markers on the page.

    Raises:
        ValueError: If the page has no such markers.
    """
    begin, end = f"<!-- {table.name}: begin -->", f"<!-- {table.name}: end -->"
    text = page.read_text()
    if begin not in text or end not in text:
        raise ValueError(f"{page} has no markers {begin} and {end}")
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    filled = f"{begin}\n{table.markdown()}\n{end}"
    page.write_text(pattern.sub(lambda _: filled, text))


def measured_on() -> str:
    """Date, machine and versions in one sentence."""
    today = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "captum"))
    load = f"{os.getloadavg()[0]:.0f}"
    return (
        f"Measured {today} on {os.cpu_count()} cores ({_cpu()}), {torch.get_num_threads()} "
        f"torch threads, Python {platform.python_version()}, {versions}; the machine was shared, "
        f"load average {load} at the end."
    )


def row(title: str, timings: Mapping[str, Timing], agreement: str = "") -> list[str]:
    """A row of a comparison of voxplain, captum and the floor."""
    ours, theirs, floor = (timings[name] for name in ("voxplain", "captum", "floor"))
    wall, cpu = theirs.times(ours)
    above = ours.times(floor)[1]
    measured = [seconds(ours.seconds), seconds(theirs.seconds), times(wall), times(cpu)]
    return [title, *measured, times(above), agreement]


def seconds(value: float) -> str:
    """A time that reads well."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.3g} s"


def times(value: float) -> str:
    """A ratio that reads well."""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
