"""``page.json`` of an analysis: what a reader of the report sees of it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict

from voxplain.records.atomic import atomic_write
from voxplain.records.record import Record

PAGE = "page.json"
"""The file in the folder of an analysis."""

VerdictStatus = Literal["pass", "fail", "not measured"]
Cell = str | float | None


class PageVerdict(Record):
    """One thing that was checked: what, with which result, and in words."""

    topic: str
    status: VerdictStatus
    text: str = ""


class PageFigure(Record):
    """A picture.

    Attributes:
        file: In the folder of the analysis.
        caption: Below it.
        alt: What it shows, for those who cannot see it.
        verdicts: On this picture.
    """

    file: str
    caption: str
    alt: str
    verdicts: list[PageVerdict] = []


class PageTable(Record):
    """A table; numbers stand at the right, None is shown as nothing.

    Attributes:
        title: Above it.
        columns: Their names.
        rows: As many cells as columns in each.
        note: Below it.
        names: By which cards refer to the rows; none, or one per row.
        cards: Names of the cards that rows lead to, ``""`` for none; none, or one per row.
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")

    title: str
    columns: list[str]
    rows: list[list[Cell]]
    note: str = ""
    names: list[str] = []
    cards: list[str] = []


class PageCard(Record):
    """What is known of one unit, case, direction or error.

    Attributes:
        title: Above it.
        subtitle: Below the title.
        facts: Names and values.
        verdicts: On what it is about.
        figures: Pictures.
        name: By which rows of tables refer to it.
        links: Words, and the names of the rows of tables that they lead to.
    """

    title: str
    subtitle: str = ""
    facts: list[tuple[str, str]] = []
    verdicts: list[PageVerdict] = []
    figures: list[PageFigure] = []
    name: str = ""
    links: list[tuple[str, str]] = []


class GraphNode(Record):
    """A concept in a layer; ``column`` counts layers from the input on."""

    id: str
    label: str
    column: int
    note: str = ""


class GraphEdge(Record):
    """A link; ``weight`` from 0 to 1, ``sign`` of the change, and whether it is significant."""

    source: str
    target: str
    weight: float
    sign: Literal[-1, 0, 1] = 1
    significant: bool = True
    note: str = ""


class PageGraph(Record):
    """A graph that is drawn in columns; ``trails`` are paths of nodes, with their words."""

    nodes: list[GraphNode]
    edges: list[GraphEdge]
    trails: list[tuple[str, list[str]]] = []
    note: str = ""


class AnalysisPage(Record):
    """What the report shows of one analysis.

    Attributes:
        title: Of its section.
        lead: Sentences with what was found, the most important first.
        remarks: What the reader should know before believing it.
        verdicts: On the whole.
        figures: Pictures of the whole.
        tables: Numbers.
        cards: Of units, cases or errors, the most important first.
        graph: Of concepts, if there is one.
    """

    schema_version: int = 1
    title: str
    lead: list[str] = []
    remarks: list[str] = []
    verdicts: list[PageVerdict] = []
    figures: list[PageFigure] = []
    tables: list[PageTable] = []
    cards: list[PageCard] = []
    graph: PageGraph | None = None

    def write(self, folder: Path) -> Path:
        """Writes it into the folder of the analysis."""
        return atomic_write(folder / PAGE, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> AnalysisPage:
        """The page in the folder of an analysis.

        Raises:
            OSError: If there is none.
            ValueError: If it is damaged or of another version.
        """
        return cls.model_validate_json((folder / PAGE).read_bytes())
