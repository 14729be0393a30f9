"""Loading of networks: factories and weights, MONAI bundles, pickles, TorchScript and ONNX."""

from __future__ import annotations

from voxplain.models.loading.blackbox import BlackBox
from voxplain.models.loading.fitting import load_weights
from voxplain.models.loading.load import load_network
from voxplain.models.loading.spec import ModelSpec
from voxplain.models.loading.weights import read_weights
from voxplain.models.rest import weights_sha256

__all__ = [
    "BlackBox",
    "ModelSpec",
    "load_network",
    "load_weights",
    "read_weights",
    "weights_sha256",
]
