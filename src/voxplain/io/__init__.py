"""Reading and writing of images, masks and maps."""

from __future__ import annotations

from voxplain.io.mask import read_labels, read_mask
from voxplain.io.read import read_image
from voxplain.io.write import write_image, write_labels, write_map
from voxplain.records.atomic import atomic_write, sha256
from voxplain.records.names import dataset_description, map_name, safe
from voxplain.records.sidecar import Sidecar

__all__ = [
    "Sidecar",
    "atomic_write",
    "dataset_description",
    "map_name",
    "read_image",
    "read_labels",
    "read_mask",
    "safe",
    "sha256",
    "write_image",
    "write_labels",
    "write_map",
]
