"""One attribution as a fragment of HTML, for notebooks."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

from jinja2 import Template
from torch import Tensor

from voxplain.image import Grid, Image
from voxplain.records.sidecar import Sidecar
from voxplain.viz.embed import figure_uri
from voxplain.viz.facts import alternative, map_facts
from voxplain.viz.figures import map_figure, png
from voxplain.viz.findings import top_regions
from voxplain.viz.overlay import Overlay
from voxplain.viz.templates import template_environment
from voxplain.viz.volume import DisplayVolume
from voxplain.viz.words import sentence, title


class MapLike(Protocol):
    """What a fragment needs of an attribution."""

    @property
    def map(self) -> Tensor:
        """``(C, *spatial)``."""
        ...

    @property
    def grid(self) -> Grid | None:
        """Where the map lies; None without spatial axes."""
        ...

    @property
    def sidecar(self) -> Sidecar:
        """Everything that is known about the map."""
        ...


def panel_html(attribution: MapLike, image: Image | None = None) -> str:
    """A figure with caption and facts that stands alone: no script, no request.

    Args:
        attribution: One map; of a batch, take one image's first.
        image: The image it belongs to, as background.

    Returns:
        An HTML fragment with its own style.
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
            lists=top_regions(sidecar),
            figure="",
            alt="",
        )
    map = DisplayVolume.of(attribution.map, attribution.grid, sidecar.channels).canonical()
    scene = _scene(map, image, sidecar)
    name = title(sidecar.label)
    return template.render(
        sidecar=sidecar,
        facts=map_facts(sidecar, map),
        lists=top_regions(sidecar),
        figure=figure_uri(png(map_figure(scene))),
        alt=alternative(name, map, sidecar),
    )


def _scene(map: DisplayVolume, image: Image | None, sidecar: Sidecar) -> Overlay:
    back = None
    if image is not None:
        source = DisplayVolume.of(image.data, image.grid, image.channels).canonical()
        back, map = source, map.onto(source)
    name = title(sidecar.label)
    layer = f", {sidecar.layer.path}" if sidecar.layer else ""
    return Overlay(
        map,
        back,
        title=f"{name}{layer}  ·  model {sidecar.model.name}",
        subtitle=sentence(sidecar.target.in_words),
        units=sidecar.units,
        sign=sidecar.sign,
    )


@lru_cache(maxsize=1)
def _template() -> Template:
    return template_environment().get_template("notebook.html.jinja")
