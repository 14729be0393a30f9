"""Loading networks from files: the public names of :mod:`voxplain.models.loading`."""

from voxplain.models.loading import ModelSpec, load_network, weights_sha256

__all__ = ["ModelSpec", "load_network", "weights_sha256"]
