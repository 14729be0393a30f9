"""Regions of images: supervoxels, blocks, anatomical labels, channels, and segments."""

from __future__ import annotations

from voxplain.regions.labels import LabelMap
from voxplain.regions.map import RegionMap
from voxplain.regions.parse import RegionSpec, parse_regions, segment
from voxplain.regions.scales import scales
from voxplain.regions.segments import Segments
from voxplain.regions.spec import Blocks, Channels, Regions
from voxplain.regions.supervoxels import Supervoxels

__all__ = [
    "Blocks",
    "Channels",
    "LabelMap",
    "RegionMap",
    "RegionSpec",
    "Regions",
    "Segments",
    "Supervoxels",
    "parse_regions",
    "scales",
    "segment",
]
