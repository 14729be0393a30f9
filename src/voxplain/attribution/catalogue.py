"""Every method of the package: importing this module fills the registry."""

from voxplain.attribution import (
    attention,
    cam,
    contrast,
    excitation,
    extremal,
    games,
    gradient,
    layer,
    layer_perturbation,
    noise,
    path_methods,
    perturbation,
    relevance,
    surrogate,
    xrai,
)

__all__ = [
    "attention",
    "cam",
    "contrast",
    "excitation",
    "extremal",
    "games",
    "gradient",
    "layer",
    "layer_perturbation",
    "noise",
    "path_methods",
    "perturbation",
    "relevance",
    "surrogate",
    "xrai",
]
