"""What a network makes of synthesized images: activations of tapped layers, and the output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import Literal

import torch
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.network_layers import NetworkLayers
from voxplain.engine.taps import Tap, tapping
from voxplain.errors import ModelError
from voxplain.models.failures import GradientError
from voxplain.models.model import Model

OutputMeaning = Literal["scores", "exclusive", "independent"]
"""Scores; probabilities of which one class holds; probabilities of each class."""


@dataclass(frozen=True, eq=False)
class Reading:
    """One forward of some images.

    Attributes:
        layers: Where the cells of layers lie in these images.
        values: Activations ``(B, K, *cells)`` by tap.
        output: Scores ``(B, K)`` or ``(B, K, *cells)``: the logarithm of probabilities, so that
            differences of classes are those of the scores before a softmax.
        start: What the network makes of the images that the optimization started from, under the
            same transforms, where that is asked for.
    """

    layers: NetworkLayers
    values: Mapping[Tap, Tensor]
    output: Tensor
    start: Reading | None = None

    def rows(self, rows: slice) -> Reading:
        """The same of some of the images."""
        values = {tap: value[rows] for tap, value in self.values.items()}
        start = None if self.start is None else self.start.rows(rows)
        return replace(self, values=values, output=self.output[rows], start=start)


class Reader:
    """Runs a network on images and reads layers.

    Args:
        model: The network; it is at rest while it is read.
        example: ``(1, C, *spatial)``, of the size that is read.
        taps: The layers.

    Raises:
        ModelError: If the network gives no gradients, or a layer does not exist.
    """

    def __init__(self, model: Model, example: Tensor, taps: Sequence[Tap]) -> None:
        if not model.differentiable:
            raise without_gradients(model, "it only runs forward")
        self.model, self._taps = model, tuple(dict.fromkeys(taps))
        model.observe(example)
        self.layers = NetworkLayers(model, example, tuple(example.shape[2:]), None)
        if self._taps:
            self.layers.taps([tap.path for tap in self._taps])
            self.layers.locate(self._taps)
        self._meaning = meaning_of_output(model, example)

    def __call__(self, images: Tensor) -> Reading:
        """Activations and output, with their graph where gradients are on.

        Raises:
            ModelError: If the network fails, or its gradients cannot be taken.
        """
        if self.model.behavior.one_by_one and len(images) > 1:
            return self._joined([self(image) for image in torch.split(images, 1)])
        try:
            with tapping(self.model.network, self._taps) as tapped:
                output = self.model(images)
        except GradientError as error:
            raise without_gradients(self.model, str(error)) from error
        values = {tap: self.layers.arranged(tap, tapped[tap])[: len(images)] for tap in self._taps}
        return Reading(self.layers, values, log_scores(output, self._meaning))

    def _joined(self, parts: Sequence[Reading]) -> Reading:
        values = {tap: torch.cat([part.values[tap] for part in parts]) for tap in self._taps}
        return Reading(self.layers, values, torch.cat([part.output for part in parts]))


def at_cell(values: Tensor, cell: Sequence[int]) -> Tensor:
    """Values ``(..., *cells)`` at one cell."""
    index: tuple[EllipsisType | int, ...] = (..., *cell)
    return values[index]


def meaning_of_output(model: Model, example: Tensor) -> OutputMeaning:
    """Whether a network gives scores or probabilities, as found on one image."""
    meaning = Context.open(model, example).look().meaning
    return meaning if meaning in ("exclusive", "independent") else "scores"


def log_scores(output: Tensor, meaning: OutputMeaning) -> Tensor:
    """Scores as they are; of probabilities the logarithm or, of each class alone, the logit."""
    if meaning == "scores":
        return output
    if meaning == "independent" or output.shape[1] == 1:
        return torch.logit(output, eps=1e-7)
    return output.clamp_min(torch.finfo(output.dtype).tiny).log()


def without_gradients(model: Model, why: str) -> ModelError:
    """The error for a network that cannot be differentiated."""
    return ModelError(
        f"synthesis needs gradients, and {model.name} gives none ({why.rstrip('.')}); "
        "dissection works without"
    )
