"""Attribution: which voxels and layers drive a score."""

from voxplain.attribution.explain import explain
from voxplain.attribution.method import Method, methods, parse_method
from voxplain.attribution.result import Attribution

__all__ = ["Attribution", "Method", "explain", "methods", "parse_method"]
