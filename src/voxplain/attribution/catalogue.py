"""Every method of the package: importing this module fills the registry."""

from voxplain.attribution import (
    cam,
    gradient,
    layer,
    noise,
    path_methods,
    perturbation,
    xrai,
)

__all__ = [
    "cam",
    "gradient",
    "layer",
    "noise",
    "path_methods",
    "perturbation",
    "xrai",
]
