"""Which voxels of the input the cells of a layer stand for."""

from voxplain.geometry.follow import LayerCall, follow_network
from voxplain.geometry.layer import LayerGeometry, geometry_of, layer_geometry
from voxplain.geometry.place import place

__all__ = [
    "LayerCall",
    "LayerGeometry",
    "follow_network",
    "geometry_of",
    "layer_geometry",
    "place",
]
