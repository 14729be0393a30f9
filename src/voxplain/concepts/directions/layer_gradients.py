"""The gradient of a score at layers, and their activations, in one pass of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.execution.networks import run_networks
from voxplain.engine.execution.session import Session
from voxplain.engine.gradients.reducers import MeanGradient, MeanValue, Reducer
from voxplain.engine.gradients.samplers import Original
from voxplain.engine.method import Method
from voxplain.engine.requests import GradientRequest, Request
from voxplain.engine.stream_io import StreamResults
from voxplain.engine.taps import Tap
from voxplain.targets import Target


@dataclass(frozen=True, eq=False)
class LayerPass:
    """One image at some layers.

    Attributes:
        values: Activations by the path of the layer, ``(K, *cells)``; ``(K, windows, *cells)`` for
            a network with windows.
        gradients: dS/dA of the same shapes; over the windows they add up.
    """

    values: dict[str, Tensor]
    gradients: dict[str, Tensor]


def layer_pass(context: Context, layers: tuple[str, ...], target: Target) -> LayerPass:
    """The gradient of a score at layers, and their activations, for the image of a context.

    Raises:
        ModelError: If the network has no gradients, or a layer does not exist.
        TargetError: If there is nothing to explain in this image.
    """
    methods = (_LayerGradients(layers=layers), _LayerValues(layers=layers))
    with torch.inference_mode(False):
        (outputs,) = run_networks([Session.open(context, methods, target)])
    gradients, values = (outputs[method.key][0].maps for method in methods)
    return LayerPass(_by_path(values), _by_path(gradients))


def _by_path(maps: dict[str | None, Tensor]) -> dict[str, Tensor]:
    return {path: value.cpu() for path, value in maps.items() if path is not None}


class _LayerGradients(Method):
    """The gradient of the score at layers."""

    reducer: ClassVar[type[Reducer]] = MeanGradient
    name: Literal["sensitivity of layers"] = "sensitivity of layers"
    layers: tuple[str, ...]

    def requests(self, context: Context) -> tuple[Request, ...]:
        """One pass at the image."""
        places = tuple(Tap(path) for path in self.layers)
        return (GradientRequest(Original(), self.reducer, places=places),)

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """By the path of the layer."""
        return {tap.path: value for tap, value in results[0].items()}


class _LayerValues(_LayerGradients):
    """The activations of layers."""

    reducer = MeanValue
    name: Literal["values of layers"] = "values of layers"  # type: ignore[assignment]
