"""Loading of networks: factories, MONAI bundles, nnU-Net folders, pickles, programs."""

from __future__ import annotations

from voxplain.models.loading.blackbox import BlackBox
from voxplain.models.loading.fitting import load_weights
from voxplain.models.loading.load import load_network, open_network
from voxplain.models.loading.opened import Beside, OpenedNetwork
from voxplain.models.loading.spec import ModelSpec
from voxplain.models.loading.weights import read_weights
from voxplain.models.rest import weights_sha256

__all__ = [
    "Beside",
    "BlackBox",
    "ModelSpec",
    "OpenedNetwork",
    "load_network",
    "load_weights",
    "open_network",
    "read_weights",
    "weights_sha256",
]
