"""Figures and the HTML report of a run."""

from voxplain.report.figures import mosaic
from voxplain.report.panel import panel_html
from voxplain.report.render import render
from voxplain.report.scene import Scene
from voxplain.report.volume import Volume

__all__ = ["Scene", "Volume", "mosaic", "panel_html", "render"]
