"""A network and one case after the other; where cells lie is found once for each shape."""

from __future__ import annotations

from torch import nn

from voxplain.engine.cohort import CohortCase
from voxplain.engine.context import Context
from voxplain.engine.network_layers import NetworkLayers
from voxplain.models.model import Model


class CaseContexts:
    """Opens the context of every case of a cohort.

    Args:
        model: The network.
        seed: Of the numbers that a random network draws in each call.
    """

    def __init__(self, model: Model | nn.Module, seed: int = 0) -> None:
        self._model, self._seed = Model.of(model), seed
        self._layers: dict[object, NetworkLayers] = {}

    def open(self, case: CohortCase) -> Context:
        """The context of a case."""
        # To follow the functions of a network takes longer than a forward, and what comes of it
        # depends on the shape of the image alone.
        context = Context.open(self._model, case.image, self._seed)
        shape = (context.inputs.shape, context.spacing)
        if shape in self._layers:
            context.layers = self._layers[shape]
        else:
            self._layers[shape] = context.layers
        return context
