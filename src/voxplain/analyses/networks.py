"""What analyses need of networks beside the one that is studied."""

from __future__ import annotations

import torch

from voxplain.engine.cohort import Cohort
from voxplain.engine.context import Context
from voxplain.engine.randomization import random_network
from voxplain.models.model import Model

_IMAGES = 4
"""Images on which the norms of a random network are calibrated."""


def randomized(model: Model, cohort: Cohort, seed: int) -> Model:
    """The network with random weights, its norms calibrated on some cases of one size.

    Raises:
        ModelError: If it runs no layer with parameters.
    """
    shown: list[torch.Tensor] = []
    for case in cohort:
        example = Context.open(model, case.image).example
        if not shown or example.shape == shown[0].shape:
            shown.append(example)
        if len(shown) == _IMAGES:
            break
    return random_network(model, torch.cat(shown), seed)
