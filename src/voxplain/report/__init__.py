"""Figures and the HTML report of a run."""

from __future__ import annotations

from voxplain.report.render import render
from voxplain.viz.figures import mosaic
from voxplain.viz.notebook import panel_html
from voxplain.viz.overlay import Scene
from voxplain.viz.volume import Volume

__all__ = ["Scene", "Volume", "mosaic", "panel_html", "render"]
