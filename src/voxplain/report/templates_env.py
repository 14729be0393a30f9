"""Fills the templates of a page with cases and scores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from voxplain.records.manifest import Manifest
from voxplain.report.case_view import CaseView
from voxplain.report.network.view import NetworkView, without_pictures
from voxplain.report.problems import Problem
from voxplain.report.trust.view import TrustView
from voxplain.version import __version__
from voxplain.viz.templates import template_environment

Trust = tuple[list[TrustView], list[Problem]]
"""Scores of the maps by model and target, and which files of scores could not be read."""

NO_TRUST: Trust = ([], [])


def page(
    manifest: Manifest,
    views: list[CaseView],
    links: Sequence[str] = (),
    trust: Trust = NO_TRUST,
    networks: Sequence[tuple[str, str]] = (),
    *,
    share: bool,
) -> str:
    """The HTML of a page.

    Args:
        manifest: Of the run.
        views: The cases of the page.
        links: The file of each case, where every case has a page of its own: this page then lists
            the cases. Empty for a page that shows them.
        trust: Scores of their maps.
        networks: Names of the networks that have a page of their own, and its file.
        share: Whether images are left out.
    """
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            manifest=manifest,
            views=views,
            share=share,
            kinds={view.viewer["kind"] for view in views if view.viewer},
            methods=_methods(views),
            links=links,
            trust=trust[0],
            unread=trust[1],
            networks=networks,
            targets=_targets(manifest),
            precisions=_precisions(views),
        )
    )


def network_page(view: NetworkView, manifest: Manifest, home: str) -> str:
    """The HTML of the page of a network.

    Args:
        view: What was found inside of it.
        manifest: Of the run.
        home: The file of the page of the run.
    """
    template = _environment().get_template("network.html.jinja")
    return template.render(
        view=view, cases=len(manifest.cases), home=home, without_pictures=without_pictures
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = template_environment("voxplain.report")
    environment.globals |= {"static": _static, "version": __version__}
    return environment


@lru_cache(maxsize=8)
def _static(name: str) -> Markup:
    """The text of a style sheet, script or license, which goes into the page unescaped."""
    text = files("voxplain.report").joinpath("static", name).read_text(encoding="utf-8")
    return Markup(text)


def _precisions(views: Sequence[CaseView]) -> dict[str, list[str]]:
    """The precisions in which the passes for the maps of each model ran."""
    precisions: dict[str, list[str]] = {}
    for sidecar in (map_view.sidecar for view in views for map_view in view.maps):
        ran = precisions.setdefault(sidecar.model.name, [])
        ran += [name for name in sidecar.model.precision.split(" and ") if name not in ran]
    return precisions


def _targets(manifest: Manifest) -> dict[tuple[str, str], str]:
    """What is explained, by model and target, in words of the first case."""
    targets: dict[tuple[str, str], str] = {}
    for prediction in manifest.predictions:
        key = (prediction.model, prediction.target)
        targets.setdefault(key, f"case {prediction.case}: {prediction.in_words}")
    return targets


def _methods(views: list[CaseView]) -> list[dict[str, Any]]:
    """Sidecar and parameters of each method, once per setting."""
    methods: dict[str, dict[str, Any]] = {}
    for sidecar in (map_view.sidecar for view in views for map_view in view.maps):
        parameters = {k: v for k, v in sidecar.parameters.items() if k not in ("name", "label")}
        key = f"{sidecar.method} {sidecar.label} {parameters}"
        methods.setdefault(key, {"sidecar": sidecar, "parameters": parameters})
    return list(methods.values())
