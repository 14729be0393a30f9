"""The place of the cells of a layer in the input image."""

from __future__ import annotations

from voxplain.models.geometry.follow import LayerCall, TracedTensor, follow_network
from voxplain.models.geometry.interpolation import interpolation
from voxplain.models.geometry.layer import LayerGeometry, geometry_of, layer_geometry
from voxplain.models.geometry.place import place
from voxplain.models.geometry.probe import confirmed

__all__ = [
    "LayerCall",
    "LayerGeometry",
    "TracedTensor",
    "confirmed",
    "follow_network",
    "geometry_of",
    "interpolation",
    "layer_geometry",
    "place",
]
