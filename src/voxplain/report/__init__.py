"""Figures and the HTML report of a run."""

from __future__ import annotations

from voxplain.report.render import render
from voxplain.viz.figures import map_figure
from voxplain.viz.notebook import panel_html
from voxplain.viz.overlay import Overlay
from voxplain.viz.volume import DisplayVolume

__all__ = ["DisplayVolume", "Overlay", "map_figure", "panel_html", "render"]
