"""Templates, style and scripts of the page, and what they are filled with."""

from __future__ import annotations

from typing import Any

from voxplain.records.manifest import Manifest
from voxplain.report.case_view import CaseView
from voxplain.report.problems import Problem
from voxplain.report.trust.view import TrustView
from voxplain.viz.templates import environment

Trust = tuple[list[TrustView], list[Problem]]
NOTHING: Trust = ([], [])


def page(manifest: Manifest, views: list[CaseView], trust: Trust = NOTHING, *, share: bool) -> str:
    """A whole page with these cases, and what was measured of their maps."""
    kinds = {view.viewer["kind"] for view in views if view.viewer}
    template = environment().get_template("page.html.jinja")
    return template.render(
        manifest=manifest,
        views=views,
        share=share,
        kinds=kinds,
        methods=methods(views),
        links=[],
        trust=trust[0],
        unread=trust[1],
        asked=asked(manifest),
    )


def index(
    manifest: Manifest,
    views: list[CaseView],
    links: list[str],
    trust: Trust = NOTHING,
    *,
    share: bool,
) -> str:
    """The page that leads to one page per case."""
    template = environment().get_template("page.html.jinja")
    return template.render(
        manifest=manifest,
        views=views,
        share=share,
        kinds=set(),
        methods=methods(views),
        links=links,
        trust=trust[0],
        unread=trust[1],
        asked=asked(manifest),
    )


def asked(manifest: Manifest) -> dict[tuple[str, str], str]:
    """What each network was asked, by its name and that of the target, in words of one case."""
    found: dict[tuple[str, str], str] = {}
    for part in manifest.predictions:
        found.setdefault((part.model, part.target), f"case {part.case}: {part.in_words}")
    return found


def methods(views: list[CaseView]) -> list[dict[str, Any]]:
    """Each method once per setting, with its meaning and parameters."""
    unique: dict[str, dict[str, Any]] = {}
    for sidecar in (map.sidecar for view in views for map in view.maps):
        parameters = {k: v for k, v in sidecar.parameters.items() if k not in ("name", "label")}
        key = f"{sidecar.method} {sidecar.label} {parameters}"
        unique.setdefault(key, {"sidecar": sidecar, "parameters": parameters})
    return list(unique.values())
