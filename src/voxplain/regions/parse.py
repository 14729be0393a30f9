"""Region settings of studies and callers, and the regions of an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from torch import Tensor

from voxplain.errors import ConfigError, nearest
from voxplain.image import Image
from voxplain.regions.cache import RegionCache
from voxplain.regions.labels import LabelMap
from voxplain.regions.map import RegionMap
from voxplain.regions.spec import Blocks, Channels, Regions, Spacing
from voxplain.regions.supervoxels import Supervoxels

AnyRegions = Annotated[Supervoxels | Blocks | LabelMap | Channels, Field(discriminator="kind")]
"""A division into regions by its ``kind``."""

_BARE = {"supervoxels": Supervoxels, "blocks": Blocks, "channels": Channels}
_CACHE: RegionCache[RegionMap] = RegionCache()


def _spelled_out(value: Any) -> Any:
    """A kind, a count, an array or a file as the mapping that it abbreviates."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return {"kind": "supervoxels", "count": value}
    if isinstance(value, (Tensor, np.ndarray)):
        return {"kind": "labels", "labels": value}
    if isinstance(value, str) and value in _BARE:
        return {"kind": value}
    if isinstance(value, str) and not _looks_like_a_file(value):
        raise ValueError(f"unknown regions {value!r}; {nearest(value, [*_BARE, 'labels'])}")
    if isinstance(value, (str, Path)):
        return {"kind": "labels", "labels": value}
    return value


def _looks_like_a_file(text: str) -> bool:
    return any(mark in text for mark in "./\\*")


RegionSpec = Annotated[
    AnyRegions,
    BeforeValidator(_spelled_out, json_schema_input_type=AnyRegions | int | str),
]
"""Regions as a field of a method: settings, or a kind, a count, an array or a file alone."""

_ADAPTER: TypeAdapter[Regions] = TypeAdapter(RegionSpec)


def parse_regions(spec: Any) -> Regions:
    """The region settings that a study or a caller writes.

    Args:
        spec: ``"supervoxels"``, ``"blocks"`` or ``"channels"``; a number of supervoxels; a label
            map as array or file; a mapping with ``kind``; or settings.

    Raises:
        ConfigError: If the kind is unknown (with the nearest ones) or a field does not fit.
    """
    if isinstance(spec, Regions):
        return spec
    try:
        return _ADAPTER.validate_python(dict(spec) if isinstance(spec, Mapping) else spec)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(["regions", *map(str, first["loc"])])
        raise ConfigError(f"{path}: {first['msg'].removeprefix('Value error, ')}") from None


def segment(
    spec: Any, image: Tensor, spacing: Spacing = None, scan: Image | None = None
) -> RegionMap:
    """The regions of an image; supervoxels are cached, so that methods share them.

    Args:
        spec: See :func:`parse_regions`.
        image: ``(C, *spatial)`` on the grid of the network's input, without added noise.
        spacing: Millimeters per voxel, or None.
        scan: The image on its grid, for label maps in files and names of channels.

    Raises:
        InputError: If a label map does not fit, or holds no region.
    """
    regions = parse_regions(spec)
    if not isinstance(regions, Supervoxels):
        return regions.divide(image, spacing, scan)
    settings = (regions.model_dump_json(), None if spacing is None else tuple(spacing))
    return _CACHE.get(settings, image, lambda: regions.divide(image, spacing, scan))
