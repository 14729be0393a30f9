"""What analyses need of networks beside the one that is studied."""

from __future__ import annotations

import torch

from voxplain.analyses.analysis import AnalysisInputs
from voxplain.engine.cohort import Cohort
from voxplain.engine.context import Context
from voxplain.engine.randomization import random_network
from voxplain.errors import ModelError
from voxplain.models.model import Model

_IMAGES = 4
"""Images on which the norms of a random network are calibrated."""


def compared_random_network(inputs: AnalysisInputs, asked: bool) -> tuple[Model | None, list[str]]:
    """The network with random weights that results are compared with, and remarks.

    Args:
        inputs: Of the analysis.
        asked: Whether there is to be one.

    Returns:
        None where it was not asked for, or, with a remark, where the network has no weights.
    """
    if not asked:
        return None, []
    try:
        return _randomized(inputs.model, inputs.cohort, inputs.seed), []
    except ModelError as error:
        return None, [f"no network with random weights is compared: {error}"]


def _randomized(model: Model, cohort: Cohort, seed: int) -> Model:
    """The network with random weights, its norms calibrated on some cases of one size."""
    shown: list[torch.Tensor] = []
    for case in cohort:
        example = Context.open(model, case.image).example
        if not shown or example.shape == shown[0].shape:
            shown.append(example)
        if len(shown) == _IMAGES:
            break
    return random_network(model, torch.cat(shown), seed)
