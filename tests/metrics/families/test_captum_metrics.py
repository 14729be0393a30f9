"""Infidelity and sensitivity equal captum's, given the same target and the same draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import captum.attr
import captum.metrics
import pytest
import torch
from injected import GivenChanges, GivenInfidelity, GivenNormalized, GivenSensitivity
from metric_cases import explained, metric_context, value
from networks import Summed, classifier, images, segmenter
from torch import Tensor, nn

from voxplain.engine.context import Context
from voxplain.metrics import MapField
from voxplain.targets import parse_target

DRAWS = 12
SETTINGS = [(task, rank) for task in ("classification", "segmentation") for rank in (2, 3)]
every_setting = pytest.mark.parametrize(("task", "rank"), SETTINGS)


def _setting(task: str, rank: int) -> tuple[nn.Module, nn.Module, Any, int, Tensor]:
    """Our network and target, captum's network and target, an image ``(1, C, *spatial)``."""
    image = images(rank, 2).double()
    if task == "classification":
        network = classifier(rank, 2).double()
        return network, network, {"kind": "class_score", "label": 1}, 1, image
    network, target = segmenter(rank, 2).double(), {"kind": "pixelwise", "label": 1}
    weights = Context.open(network, image).bind(parse_target(target)).field.terms[0].weights
    return network, Summed(network, weights), target, 0, image


def _noise(image: Tensor, scale: float) -> Tensor:
    source = torch.Generator().manual_seed(5)
    return scale * torch.randn(DRAWS, *image.shape[1:], generator=source, dtype=torch.float64)


@every_setting
@pytest.mark.parametrize("normalize", [False, True])
def test_infidelity(task: str, rank: int, normalize: bool) -> None:
    network, theirs, target, label, image = _setting(task, rank)
    changes, attribution_map = _noise(image, 0.1), torch.randn_like(image)
    expected = captum.metrics.infidelity(
        theirs,
        lambda images: (changes, images - changes),
        image,
        attribution_map,
        target=label,
        n_perturb_samples=DRAWS,
        normalize=normalize,
    )
    context, given = metric_context(network, image[0], target=target), GivenChanges.of(changes)
    field = MapField("noise", attribution_map[0], share=False)
    result = value(GivenInfidelity(given=given, draws=DRAWS), field, context)
    if not normalize:
        assert result.value == pytest.approx(float(expected), rel=1e-5)
        return
    # Captum scales the map at its best and divides by nothing; ours is a share of E[d^2].
    scores = torch.cat([_score(network, image - change, target, image) for change in changes])
    drops = context.score - scores
    best = value(GivenNormalized(given=given, draws=DRAWS), field, context)
    assert best.value * float(drops.square().mean()) == pytest.approx(float(expected), rel=1e-5)


def _score(network: nn.Module, images: Tensor, target: Any, image: Tensor) -> Tensor:
    bound = Context.open(network, image).bind(parse_target(target))
    return bound.field.score(network(images).detach())


@every_setting
@pytest.mark.parametrize("name", ["saliency", "input_x_gradient"])
def test_sensitivity(task: str, rank: int, name: str) -> None:
    network, theirs, target, label, image = _setting(task, rank)
    noise = _noise(image, 0.02)
    peers: dict[str, Callable[..., Tensor]] = {
        "saliency": lambda shown, target: captum.attr.Saliency(theirs).attribute(
            shown, target=target, abs=False
        ),
        "input_x_gradient": captum.attr.InputXGradient(theirs).attribute,
    }
    expected = captum.metrics.sensitivity_max(
        peers[name],
        image,
        perturb_func=lambda shown: shown + noise,
        n_perturb_samples=DRAWS,
        target=label,
    )
    context = explained(network, image[0], name, target=target)
    metric = GivenSensitivity(given=noise, draws=DRAWS)
    result = value(metric, context.fields[name], context)
    assert result.value == pytest.approx(float(expected), rel=1e-5)
