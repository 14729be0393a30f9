"""Reads the analyses of a network from a run directory, as its page shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from voxplain.records.analysis_page import AnalysisPage, PageCard, PageFigure
from voxplain.records.manifest import AnalysisRecord, Manifest, TaskRecord
from voxplain.records.names import safe
from voxplain.report.network.graph import Drawing, draw
from voxplain.report.problems import UNREADABLE, Problem, reason
from voxplain.viz.embed import figure_uri


@dataclass(frozen=True, eq=False)
class AnalysisView:
    """One analysis on the page of its network.

    Attributes:
        record: Of the manifest.
        page: What it says.
        pictures: Its figures as data URIs, by file; empty in a report without images.
        graph: Its graph, drawn.
    """

    record: AnalysisRecord
    page: AnalysisPage
    pictures: dict[str, str] = field(default_factory=dict)
    graph: Drawing | None = None

    @property
    def slug(self) -> str:
        """Its place on the page."""
        return safe(self.record.folder.replace("/", "-"))


@dataclass(eq=False)
class NetworkView:
    """The page of a network.

    Attributes:
        model: Its name.
        analyses: Those that are done.
        failed: The tasks of analyses that failed.
        problems: What could not be read.
    """

    model: str
    analyses: list[AnalysisView] = field(default_factory=list)
    failed: list[TaskRecord] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def file(self, share: bool) -> str:
        """The name of the page."""
        return f"report-{'share-' * share}network-{safe(self.model)}.html"


def network_views(run: Path, manifest: Manifest, *, share: bool) -> Iterator[NetworkView]:
    """The networks of a run that have analyses, one after another.

    Args:
        run: The run directory.
        manifest: Of the run.
        share: Leave all images out.
    """
    for model in manifest.models:
        records = [record for record in manifest.analyses if record.model == model.name]
        failed = [
            task for task in manifest.failed if task.kind == "analysis" and task.model == model.name
        ]
        if records or failed:
            view = NetworkView(model.name, failed=failed)
            for record in records:
                _add(view, run, record, share)
            yield view


def _add(view: NetworkView, run: Path, record: AnalysisRecord, share: bool) -> None:
    try:
        page = AnalysisPage.read(run / record.folder)
    except UNREADABLE as error:
        view.problems.append(Problem(f"the analysis {record.label}", reason(error)))
        return
    pictures = {} if share else dict(_pictures(view, run / record.folder, page))
    graph = draw(page.graph) if page.graph is not None and page.graph.nodes else None
    view.analyses.append(AnalysisView(record, page, pictures, graph))


def _pictures(view: NetworkView, folder: Path, page: AnalysisPage) -> Iterator[tuple[str, str]]:
    figures = [*page.figures, *(figure for card in page.cards for figure in card.figures)]
    for figure in figures:
        try:
            yield figure.file, _uri(folder, figure)
        except UNREADABLE as error:
            view.problems.append(Problem(f"the figure {figure.file}", reason(error)))


def _uri(folder: Path, figure: PageFigure) -> str:
    """A figure as a data URI.

    Raises:
        OSError: If it cannot be read, or lies outside of the folder.
    """
    file = folder / figure.file
    if file.is_symlink() or not file.resolve().is_relative_to(folder.resolve()):
        raise FileNotFoundError(figure.file)
    with Image.open(file) as picture:
        return figure_uri(picture.convert("RGB"))


def without_pictures(card: PageCard, view: AnalysisView) -> bool:
    """Whether a card has no figure that is shown."""
    return not any(figure.file in view.pictures for figure in card.figures)
