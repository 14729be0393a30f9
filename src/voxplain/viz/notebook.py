"""An attribution as an HTML fragment for notebooks."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

from jinja2 import Template
from torch import Tensor

from voxplain.image import Grid, Image
from voxplain.records.sidecar import Sidecar
from voxplain.viz.embed import figure_uri
from voxplain.viz.facts import alternative_text, map_facts
from voxplain.viz.figures import map_figure
from voxplain.viz.findings import top_regions
from voxplain.viz.overlay import Overlay
from voxplain.viz.templates import template_environment
from voxplain.viz.volume import DisplayVolume
from voxplain.viz.words import sentence, title


class MapLike(Protocol):
    """An attribution, as far as the fragment needs it."""

    @property
    def map(self) -> Tensor:
        """``(C, *spatial)``."""
        ...

    @property
    def grid(self) -> Grid | None:
        """The grid of the map; None without spatial axes."""
        ...

    @property
    def sidecar(self) -> Sidecar:
        """Method, target, units and cost of the map."""
        ...


def panel_html(attribution: MapLike, image: Image | None = None) -> str:
    """The figure of a map with its facts, as an HTML fragment.

    Args:
        attribution: The map of one image; of a batch only a hint is shown.
        image: The image that it explains, as background.

    Returns:
        A fragment with its own style, without scripts or references to other files.
    """
    if getattr(attribution, "batched", False):
        count = len(attribution.map)
        return f"<p>Attributions of {count} images; <code>attribution[0]</code> shows one.</p>"
    sidecar = attribution.sidecar
    template = _template()
    if attribution.grid is None or attribution.grid.rank not in (2, 3):
        return template.render(
            sidecar=sidecar,
            facts=map_facts(sidecar, None),
            tables=top_regions(sidecar),
            figure="",
            alt="",
        )
    volume = DisplayVolume.of(attribution.map, attribution.grid, sidecar.channels).canonical()
    overlay = _overlay(volume, image, sidecar)
    return template.render(
        sidecar=sidecar,
        facts=map_facts(sidecar, volume),
        tables=top_regions(sidecar),
        figure=figure_uri(map_figure(overlay).draw()),
        alt=alternative_text(title(sidecar.label), volume, sidecar),
    )


def _overlay(volume: DisplayVolume, image: Image | None, sidecar: Sidecar) -> Overlay:
    background = None
    if image is not None:
        background = DisplayVolume.of(image.data, image.grid, image.channels).canonical()
        volume = volume.onto(background)
    name = title(sidecar.label)
    layer = f", {sidecar.layer.path}" if sidecar.layer else ""
    return Overlay(
        volume,
        background,
        title=f"{name}{layer}  ·  model {sidecar.model.name}",
        subtitle=sentence(sidecar.target.in_words),
        units=sidecar.units,
        sign=sidecar.sign,
        windows=None if image is None else _stated_window(image),
    )


def _stated_window(image: Image) -> tuple[tuple[float, float]] | None:
    """The window that the source states for display, in the values of the image."""
    if "window" not in image.source or len(image.channels) != 1:
        return None
    slope, intercept = (*image.intensity, (1.0, 0.0))[0]
    low, high = (float((end - intercept) / slope) for end in image.source["window"])
    return ((low, high),)


@lru_cache(maxsize=1)
def _template() -> Template:
    return template_environment().get_template("notebook.html.jinja")
