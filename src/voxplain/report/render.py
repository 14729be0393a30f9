"""Writes the report of a run: one self-contained page, or an index and one page per case."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from voxplain.errors import InputError
from voxplain.records.atomic import atomic_write
from voxplain.records.manifest import Manifest
from voxplain.records.outcome import read_manifest
from voxplain.records.scores import Scores
from voxplain.report.case_page import build_case
from voxplain.report.case_view import CaseView
from voxplain.report.kept_figures import KeptFigures
from voxplain.report.network.view import network_views
from voxplain.report.problems import UNREADABLE
from voxplain.report.templates_env import network_page, page
from voxplain.report.trust.calibration import CalibratedProbabilities, calibrated
from voxplain.report.trust.view import TABLE, build_trust

BUDGET = 25_000_000
"""Bytes that one page may have."""

_FIXED = 2_700_000
"""Bytes of NiiVue, of our scripts and styles, and room for text."""


def render(run: Path, *, share: bool = False, budget: int = BUDGET) -> Path:
    """Writes ``report.html`` and ``figures/*.png`` of a run.

    Reads only the files of the run and can be called again at any time; figures that would look
    the same are not drawn again. Beyond the budget every
    case has a page of its own (``report-<case>.html``), to which ``report.html`` links. So has
    every network with analyses (``report-network-<model>.html``).

    Args:
        run: The run directory.
        share: Writes ``report-share.html`` without any image, figure or volume instead.
        budget: Bytes that one page may have.

    Returns:
        The page to open.

    Raises:
        InputError: If the folder holds no run.
    """
    run = Path(run)
    manifest = _manifest(run)
    room = max(budget - _FIXED, 100_000)
    views: list[CaseView] = []
    links: list[str] = []
    calibrated_by_case = _calibrated(run)
    figures = KeptFigures(run)
    for case in manifest.cases:
        view = build_case(run, manifest, case, figures, share=share, budget=int(room * 0.9))
        view.calibrated = calibrated_by_case.get(case.id, {})
        views.append(view)
        if links or sum(view.size for view in views) > room:
            links += [_write_page(run, manifest, other, share) for other in views[len(links) :]]
    name = "report-share.html" if share else "report.html"
    networks = [*_network_pages(run, manifest, name, share)]
    trust = build_trust(run, figures, share=share)
    figures.close()
    return atomic_write(run / name, page(manifest, views, links, trust, networks, share=share))


def _network_pages(
    run: Path, manifest: Manifest, home: str, share: bool
) -> Iterator[tuple[str, str]]:
    """Writes a page for every network with analyses; gives its name and the file."""
    for view in network_views(run, manifest, share=share):
        file = view.file(share)
        atomic_write(run / file, network_page(view, manifest, home))
        yield view.model, file


def _manifest(run: Path) -> Manifest:
    try:
        return read_manifest(run)
    except FileNotFoundError:
        raise InputError(f"{run} is not a run directory: it has no manifest.json") from None
    except ValueError:
        raise InputError(f"the manifest.json of {run} is damaged or of another version") from None


def _calibrated(run: Path) -> dict[str, CalibratedProbabilities]:
    """Calibrated probabilities by case; empty where the table of scores cannot be read."""
    try:
        return calibrated(Scores.read(run / TABLE)) if (run / TABLE).exists() else {}
    except (*UNREADABLE, TypeError):
        return {}


def _write_page(run: Path, manifest: Manifest, view: CaseView, share: bool) -> str:
    """Writes the page of one case, frees its images and returns the name of the file."""
    name = f"report-{view.slug}.html"
    atomic_write(run / name, page(manifest, [view], share=share))
    view.blobs.clear()
    view.viewer = None
    view.maps = [map_view.without_figure() for map_view in view.maps]
    return name
