"""Networks from factories and weights, MONAI bundles, pickles, TorchScript and ONNX."""

from voxplain.loading.blackbox import BlackBox
from voxplain.loading.fitting import load_weights
from voxplain.loading.load import load_network
from voxplain.loading.spec import ModelSpec
from voxplain.loading.weights import read_weights, weights_sha256

__all__ = [
    "BlackBox",
    "ModelSpec",
    "load_network",
    "load_weights",
    "read_weights",
    "weights_sha256",
]
