"""Every method of the registry with parameters that keep a test short."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from networks import classifier, images, segmenter
from torch import Tensor, nn

from voxplain.attribution import Attribution, explain
from voxplain.attribution.methods import methods

TRANSFORMERS = ("attention_rollout",)
"""Methods that refuse the networks of these tests."""
NAMES = tuple(name for name in methods if name not in TRANSFORMERS)
STOCHASTIC = (
    "expected_gradients",
    "gradient_shap",
    "hsic_attribution",
    "kernel_shap",
    "layer_gradient_shap",
    "lime",
    "mc_rise",
    "piecewise_linear_surrogate",
    "rise",
    "shapley_value_sampling",
    "smoothgrad",
    "sobol_attribution",
    "vargrad",
)
CONSTANT_ALONE = ("channel_share",)
"""Methods whose map is constant for an image of one channel."""
COALITIONS = {
    "hsic_attribution": 8,
    "kernel_shap": 20,
    "lime": 20,
    "piecewise_linear_surrogate": 20,
}
CLASS_ONE: dict[str, Any] = {"kind": "class_score", "label": 1}


def short(name: str, **parameters: Any) -> dict[str, Any]:
    """A method with few samples and steps."""
    fields = methods.get(name).model_fields
    few: dict[str, Any] = {"samples": 3, "steps": 5, "of": "saliency", "layer_channels": [0, 1, 2]}
    few["weighting"] = "softmax"  # a channel of a random network need not raise the score
    few["against"] = 0
    few["samples"] = COALITIONS.get(name, few["samples"])
    chosen = {key: value for key, value in few.items() if key in fields}
    return {"name": name, **chosen, **parameters}


def key_of(name: str) -> str:
    """The key of a short method in the result."""
    return f"{name}_saliency" if name in ("contrast_map", "smoothgrad", "vargrad", "xrai") else name


def all_maps(
    network: nn.Module, images: Tensor, references: Tensor, target: Any = None, **options: Any
) -> dict[str, Attribution]:
    """Every method in one call, by name."""
    attributions = explain(
        network,
        images,
        [short(name) for name in NAMES],
        CLASS_ONE if target is None else target,
        references=references,
        **options,
    )
    return {name: attributions[key_of(name)] for name in NAMES}


def one_map(
    network: nn.Module, images: Tensor, references: Tensor, name: str, target: Any = None
) -> Attribution:
    """One method in a call of its own."""
    spec = CLASS_ONE if target is None else target
    attributions = explain(network, images, short(name), spec, references=references)
    return attributions[key_of(name)]


def cell_reaches_everywhere(values: Tensor) -> bool:
    """Whether no image of a batch has a constant map."""
    flat = values.flatten(1)
    return bool(torch.isfinite(flat).all() and (flat.amax(1) > flat.amin(1)).all())


SEGMENT = {"kind": "pixelwise", "label": 1}
TASKS: dict[str, tuple[Callable[..., nn.Sequential], dict[str, Any]]] = {
    "classifier": (classifier, CLASS_ONE),
    "segmenter": (segmenter, SEGMENT),
}
EXACT = 1e-11  # in float64, so that nothing but rounding is left


def setting(task: str, rank: int, batch: int = 2) -> tuple[nn.Sequential, Tensor, Tensor, Any]:
    """A network in float64, images, references and a target."""
    build, target = TASKS[task]
    references = images(rank, 2, 11).double()[8:]
    return build(rank, 2).double(), images(rank, 2, batch).double(), references, target
