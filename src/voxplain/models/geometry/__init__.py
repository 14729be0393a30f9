"""Which voxels of the input the cells of a layer stand for."""

from __future__ import annotations

from voxplain.models.geometry.follow import LayerCall, Place, follow_network
from voxplain.models.geometry.layer import LayerGeometry, geometry_of, layer_geometry
from voxplain.models.geometry.place import place

__all__ = [
    "LayerCall",
    "LayerGeometry",
    "Place",
    "follow_network",
    "geometry_of",
    "layer_geometry",
    "place",
]
