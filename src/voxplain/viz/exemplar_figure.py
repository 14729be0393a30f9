"""One figure of several cases: a map on each image, with up to two masks as outlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from voxplain.image import Image
from voxplain.viz.colors import Sign
from voxplain.viz.figures import MapFigure
from voxplain.viz.overlay import Overlay
from voxplain.viz.panels import Panel, panels
from voxplain.viz.volume import DisplayVolume
from voxplain.viz.words import number

_IN_A_ROW = 5
"""Most panels of 2-D cases side by side."""


def overlaid(
    image: Image,
    values: Tensor,
    *,
    channel: int = 0,
    solid: Tensor | None = None,
    dashed: Tensor | None = None,
    limit: float | None = None,
    sign: Sign = "positive",
) -> Overlay:
    """A map and masks on the voxels of an image, ready for figures.

    Args:
        image: As the network sees it.
        values: ``(*spatial)`` on its voxels.
        channel: The channel of the image that is shown.
        solid: Mask ``(*spatial)`` with a solid outline.
        dashed: Mask ``(*spatial)`` with a dashed outline.
        limit: Magnitude at which colors saturate.
        sign: What the sign of the map means.
    """
    shown = image.data[channel : channel + 1]
    return Overlay(
        _volume(values, image),
        DisplayVolume.of(shown, image.grid, image.channels[channel : channel + 1]).canonical(),
        prediction=None if solid is None else _mask(solid, image),
        reference=None if dashed is None else _mask(dashed, image),
        sign=sign,
        limit=limit,
    )


def exemplar_figure(
    title: str,
    subtitle: str,
    cases: Sequence[tuple[str, Overlay]],
    units: str,
    ends: tuple[str, str],
) -> MapFigure:
    """Several cases in one figure: planes through the strongest voxel of each map.

    Args:
        title: First line.
        subtitle: Second line.
        cases: A caption for each, and what is drawn; all with the same limit of colors.
        units: Of the maps.
        ends: What both ends of the color bar mean.
    """
    rows: list[list[Panel]] = []
    planar: list[Panel] = []
    for caption, overlay in cases:
        first = panels(overlay)[0]
        if overlay.map.planar:
            planar.append(replace(first[1], prediction=first[0].prediction, caption=caption))
            planar[-1] = replace(planar[-1], reference=first[0].reference)
        else:
            rows.append([replace(first[0], caption=f"{caption}, {first[0].caption}"), *first[1:]])
    rows += [planar[at : at + _IN_A_ROW] for at in range(0, len(planar), _IN_A_ROW)]
    overlay = cases[0][1]
    limit = overlay.limit or 1.0
    scale = f"Colors saturate at {number(limit)}."
    return MapFigure(title, subtitle, rows, (overlay.sign, limit, units), [scale], ends)


def _volume(values: Tensor, image: Image) -> DisplayVolume:
    return DisplayVolume.of(values[None].float(), image.grid).canonical()


def _mask(mask: Tensor, image: Image) -> NDArray[Any]:
    return np.asarray(_volume(mask, image).data[0] > 0.5)
