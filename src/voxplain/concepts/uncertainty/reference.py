"""A prediction and its uncertainties beside the reference, at the voxels that count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from voxplain.concepts.uncertainty.entropy import Classes
from voxplain.concepts.uncertainty.quality import ComparedPrediction
from voxplain.engine.baselines import foreground
from voxplain.errors import ConfigError, InputError
from voxplain.targets import UnperturbedOutput
from voxplain.targets.given_masks import labels_of

Roi = Literal["foreground", "all"] | Tensor


@dataclass(frozen=True, eq=False)
class TrueLabels:
    """What is true of an image.

    Attributes:
        labels: On the grid of the image, a label map or, for classes that may overlap, a mask per
            class ``(classes, *spatial)``; or a file on the grid of the scan; for scores the number
            of the true class.
        value: The label of the class that is asked about; every non-zero label if None.
        ignore: The label of voxels that do not count.
    """

    labels: ArrayLike | Tensor | str | Path | int
    value: int | None = None
    ignore: int | None = None

    def compared(
        self,
        classes: Classes,
        seen: UnperturbedOutput,
        mean: Tensor,
        uncertainties: Mapping[str, Tensor],
        counted: Tensor,
    ) -> ComparedPrediction:
        """The prediction beside what is true.

        Args:
            classes: What the probabilities are of.
            seen: The output for the unchanged image.
            mean: Probabilities ``(classes, *spatial)``.
            uncertainties: By kind, ``(*spatial)``.
            counted: Voxels that count, ``(*spatial)`` bool.

        Raises:
            InputError: If the reference does not lie on the grid, or holds other classes.
            ConfigError: If a value is given and no class is asked about.
        """
        labels = self._labels(seen, mean, classes)
        if self.ignore is not None:
            counted = counted & (labels != self.ignore)
        true, predicted = self._true(classes, labels, counted), classes.predicted(mean)
        objects = list(classes.objects)
        true, predicted, mean = true[:, counted], predicted[:, counted], mean[:, counted]
        wrong = (true[objects] != predicted[objects]).any(dim=0)
        if classes.exclusive and classes.label is None and not classes.binary:
            confidence, confirmed = mean.amax(dim=0), ~wrong
        else:
            confidence, confirmed = mean[objects].flatten(), true[objects].flatten()
        return ComparedPrediction(
            uncertainties={kind: values[counted] for kind, values in uncertainties.items()},
            confidence=confidence,
            confirmed=confirmed,
            wrong=wrong,
            predicted=predicted[objects],
            true=true[objects],
            names=tuple(classes.names[label] for label in objects),
        )

    def _labels(self, seen: UnperturbedOutput, mean: Tensor, classes: Classes) -> Tensor:
        labels = labels_of(self.labels, seen, self.ignore).to(mean.device)
        shape = tuple(mean.shape[1:])
        overlapping = not classes.exclusive and classes.label is None and bool(shape)
        expected = (len(mean), *shape) if overlapping else shape
        if tuple(labels.shape) != expected:
            raise InputError(
                f"a reference of shape {tuple(labels.shape)} does not fit predictions of shape "
                f"{expected}"
            )
        return labels

    def _true(self, classes: Classes, labels: Tensor, counted: Tensor) -> Tensor:
        """Where each class is, ``(classes, *spatial)`` bool."""
        count = len(classes.names)
        numbers = torch.arange(count, device=labels.device).view(-1, *(1,) * labels.ndim)
        if not counted.ndim:  # scores have one true class
            return self._one_hot(labels, numbers, counted)
        asked = 1 if classes.binary and classes.label is None else classes.label
        if asked is not None:
            inside = labels != 0 if self.value is None else labels == self.value
            return torch.where(numbers == asked, inside, ~inside)
        if self.value is not None:
            raise ConfigError("value is the label of one class; say which class with label")
        return self._one_hot(labels, numbers, counted) if classes.exclusive else labels != 0

    def _one_hot(self, labels: Tensor, numbers: Tensor, counted: Tensor) -> Tensor:
        found = {*map(int, torch.unique(labels[counted]))}
        if not found <= {*range(len(numbers))}:
            raise InputError(
                f"the reference has the labels {sorted(found)}, and the output has classes 0 to "
                f"{len(numbers) - 1}; map its labels to these, or ask about one class with label "
                "and value"
            )
        return labels == numbers


def region_of_interest(roi: Roi, image: Tensor, dense: bool) -> Tensor:
    """The voxels that are summed up and judged, ``(*spatial)`` bool; for scores everything.

    Args:
        roi: ``foreground`` is where any channel is not constant background.
        image: ``(C, *spatial)``.
        dense: Whether the output has spatial axes.

    Raises:
        InputError: If a given region lies on another grid or is empty.
    """
    if not dense:
        return torch.ones((), dtype=torch.bool, device=image.device)
    if isinstance(roi, Tensor):
        inside = roi.to(image.device) != 0
        if inside.shape != image.shape[1:] or not bool(inside.any()):
            raise InputError(
                f"a region of interest of shape {tuple(inside.shape)} with {int(inside.sum())} "
                f"voxels for an image of shape {tuple(image.shape[1:])}"
            )
        return inside
    if roi == "all":
        return torch.ones(image.shape[1:], dtype=torch.bool, device=image.device)
    return torch.stack([foreground(channel) for channel in image]).any(dim=0)
