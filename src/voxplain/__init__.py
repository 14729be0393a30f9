"""voxplain: what a medical-image network looked at, and how far that answer can be trusted."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from voxplain import preprocess
    from voxplain.attribution import Attribution, Method, explain, methods, predict
    from voxplain.attribution.audit import audit
    from voxplain.image import Grid, Image
    from voxplain.io import read_image
    from voxplain.metrics import evaluate
    from voxplain.model import Model
    from voxplain.study import Study
    from voxplain.targets import (
        ClassScore,
        Contrast,
        ErrorRegion,
        Pixelwise,
        Region,
        Threshold,
        Unit,
        Volume,
    )
    from voxplain.windows import Window

# Names are imported when they are first used, so that the command line starts without torch.
_HOMES = {
    "voxplain.attribution": ("Attribution", "Method", "explain", "methods", "predict"),
    "voxplain.attribution.audit": ("audit",),
    "voxplain.image": ("Grid", "Image"),
    "voxplain.io": ("read_image",),
    "voxplain.metrics": ("evaluate",),
    "voxplain.model": ("Model",),
    "voxplain.study": ("Study",),
    "voxplain.targets": (
        "ClassScore",
        "Contrast",
        "ErrorRegion",
        "Pixelwise",
        "Region",
        "Threshold",
        "Unit",
        "Volume",
    ),
    "voxplain.windows": ("Window",),
}
_WHERE = {name: (module, name) for module, names in _HOMES.items() for name in names}

__all__ = [
    "Attribution",
    "ClassScore",
    "Contrast",
    "ErrorRegion",
    "Grid",
    "Image",
    "Method",
    "Model",
    "Pixelwise",
    "Region",
    "Study",
    "Threshold",
    "Unit",
    "Volume",
    "Window",
    "__version__",
    "audit",
    "evaluate",
    "explain",
    "methods",
    "predict",
    "preprocess",
    "read_image",
]


def __getattr__(name: str) -> Any:
    if name == "preprocess":
        return import_module("voxplain.preprocess")
    if name not in _WHERE:
        raise AttributeError(f"module 'voxplain' has no attribute {name!r}")
    module, attribute = _WHERE[name]
    return getattr(import_module(module), attribute)
