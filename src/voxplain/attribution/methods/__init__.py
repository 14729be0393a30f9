"""Every method of the package: importing this module fills the registry."""

from __future__ import annotations

from voxplain.attribution.methods import (
    attention_rollout,
    cam,
    contrast,
    deep_lift,
    excitation,
    expected_gradients,
    extremal,
    full_grad,
    guided_backprop,
    integrated_gradients,
    lime,
    lrp,
    perturbation,
    rise,
    saliency,
    score_cam,
    sensitivity,
    shapley,
    smoothgrad,
    xrai,
)
from voxplain.engine.method import methods

__all__ = [
    "attention_rollout",
    "cam",
    "contrast",
    "deep_lift",
    "excitation",
    "expected_gradients",
    "extremal",
    "full_grad",
    "guided_backprop",
    "integrated_gradients",
    "lime",
    "lrp",
    "methods",
    "perturbation",
    "rise",
    "saliency",
    "score_cam",
    "sensitivity",
    "shapley",
    "smoothgrad",
    "xrai",
]
