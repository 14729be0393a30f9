"""The table of the study: pixel maps beside their region maps, controls below."""

from __future__ import annotations

from methods import methods
from rich.console import Console
from rich.table import Table

from voxplain.records.scores import Score, Scores

COLUMNS = {"roc_auc": ("AUC", 1), "max_dice": ("Dice", 1), "fidelity": ("F x 10", 10)}
"""The title of each metric, and the factor that publications multiply it with."""


def show(scores: Scores) -> None:
    """Prints a row per pixel map with the scores of its region map, and one per control."""
    titles = [title for title, _ in COLUMNS.values()]
    table = Table("map", *titles, *(f"region {title}" for title in titles))
    rows = {(row.method, row.metric): row for row in scores}
    for name in (row["label"] for row in methods() if row["name"] != "xrai"):
        table.add_row(name, *_cells(rows, name), *_cells(rows, f"XRAI {name}"))
    table.add_section()
    for name in dict.fromkeys(row.method for row in scores if row.control):
        table.add_row(name, *_cells(rows, name))
    Console(width=100).print(table)
    for reason in dict.fromkeys(row.reason for row in scores if row.reason):
        Console(width=100).print(f"undefined: {reason}")


def _cells(rows: dict[tuple[str, str], Score], name: str) -> list[str]:
    scaled = [(rows.get((name, metric)), scale) for metric, (_, scale) in COLUMNS.items()]
    return [f"{row.value * scale:.2f}" if row else "" for row, scale in scaled]
