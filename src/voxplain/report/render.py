"""Writes the report of a run: one self-contained page, or an index and one page per case."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from voxplain.errors import InputError
from voxplain.records.atomic import atomic_write
from voxplain.records.manifest import Manifest
from voxplain.records.scores import Scores
from voxplain.report.case_page import build_case
from voxplain.report.case_view import CaseView
from voxplain.report.problems import UNREADABLE
from voxplain.report.templates_env import page
from voxplain.report.trust.calibrated import CalibratedProbabilities, calibrated
from voxplain.report.trust.view import TABLE, build_trust

BUDGET = 25_000_000
"""Bytes that one page may have."""

# NiiVue, style and script of ours, and room for text.
_FIXED = 2_700_000


def render(run: Path, *, share: bool = False, budget: int = BUDGET) -> Path:
    """Writes ``report.html`` and ``figures/*.png`` of a run.

    Needs nothing but the files of the run; it can be called again at any time. Beyond the budget
    every case gets a page of its own (``report-<case>.html``) and ``report.html`` leads to them.

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
    chances = _chances(run)
    for case in manifest.cases:
        view = build_case(run, manifest, case, share=share, budget=int(room * 0.9))
        view.calibrated = chances.get(case.id, {})
        views.append(view)
        if links or sum(view.size for view in views) > room:
            links += [_own_page(run, manifest, each, share) for each in views[len(links) :]]
    name = "report-share.html" if share else "report.html"
    trust = build_trust(run, share=share)
    return atomic_write(run / name, page(manifest, views, links, trust, share=share))


def _manifest(run: Path) -> Manifest:
    try:
        return Manifest.read(run)
    except FileNotFoundError:
        raise InputError(f"{run} is not a run directory: it has no manifest.json") from None
    except ValidationError:
        raise InputError(f"the manifest.json of {run} is damaged or of another version") from None


def _chances(run: Path) -> dict[str, CalibratedProbabilities]:
    """Calibrated probabilities by case; the part on trust says why a table cannot be read."""
    try:
        return calibrated(Scores.read(run / TABLE)) if (run / TABLE).exists() else {}
    except (*UNREADABLE, TypeError):
        return {}


def _own_page(run: Path, manifest: Manifest, view: CaseView, share: bool) -> str:
    name = f"report-{view.slug}.html"
    atomic_write(run / name, page(manifest, [view], share=share))
    _forget(view)
    return name


def _forget(view: CaseView) -> None:
    """Frees what is on the view's own page by now."""
    view.blobs.clear()
    view.viewer = None
    view.maps = [part.without_figure() for part in view.maps]
