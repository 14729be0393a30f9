"""All methods of the package: importing this module fills the registry."""

from __future__ import annotations

from voxplain.attribution.methods import (
    attention_rollout,
    cam,
    contrast_map,
    deep_lift,
    excitation_backprop,
    expected_gradients,
    extremal_perturbation,
    feature_ablation,
    full_grad,
    guided_backprop,
    integrated_gradients,
    lime,
    lrp,
    occlusion,
    rise,
    saliency,
    score_cam,
    shapley,
    smoothgrad,
    sobol,
    xrai,
)
from voxplain.engine.method import methods

__all__ = [
    "attention_rollout",
    "cam",
    "contrast_map",
    "deep_lift",
    "excitation_backprop",
    "expected_gradients",
    "extremal_perturbation",
    "feature_ablation",
    "full_grad",
    "guided_backprop",
    "integrated_gradients",
    "lime",
    "lrp",
    "methods",
    "occlusion",
    "rise",
    "saliency",
    "score_cam",
    "shapley",
    "smoothgrad",
    "sobol",
    "xrai",
]
