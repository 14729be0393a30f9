"""What a class of the output is measured by: its mean logit over a region, and its Dice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.concepts.links.nodes import ClassOutput
from voxplain.engine.cohort import CohortCase
from voxplain.engine.context import Context
from voxplain.errors import ConfigError
from voxplain.targets.base import check_label, probability_of
from voxplain.targets.field import Activation, predicted_mask
from voxplain.targets.given_masks import on_output

MEASURES = ("logit", "dice")


@dataclass(frozen=True, eq=False)
class _Class:
    """A class on one image: where it is, and where it is looked at."""

    output: ClassOutput
    truth: Tensor
    inside: Tensor


class ClassScores:
    """The classes of one case: from outputs to mean logits and Dice.

    Dice is NaN for a classifier; both are NaN where the region is empty, as a class that a case
    does not show has neither.

    Args:
        context: The network and the image of the case, which was looked at.
        case: With its reference labels, or without.
        outputs: The classes.

    Attributes:
        unperturbed: The output for the unchanged image.

    Raises:
        TargetError: If a class does not exist, or labels do not fit the output.
    """

    def __init__(self, context: Context, case: CohortCase, outputs: Sequence[ClassOutput]) -> None:
        self.unperturbed = context.look()
        self._activation: Activation = "auto"
        if self.unperturbed.is_dense:
            self._activation = self.unperturbed.activation("auto")
        self._classes = [self._class(case, each) for each in outputs]

    def _class(self, case: CohortCase, asked: ClassOutput) -> _Class:
        seen = self.unperturbed
        if not asked.labels:
            raise ConfigError(f"output {asked.name!r} names no class of the network")
        for label in asked.labels:
            check_label(seen, label)
        if not seen.is_dense:
            everywhere = torch.ones(1, dtype=torch.bool, device=seen.output.device)
            return _Class(asked, everywhere, everywhere)
        if case.labels is None:
            truth = self._predicted(seen.output, asked)[0]
        else:
            truth = on_output(asked.reference(case.labels), seen)[0]
        within = None if asked.within is None else asked.within.of(case)
        inside = torch.ones_like(truth) if within is None else on_output(within.bool(), seen)[0]
        return _Class(asked, truth & inside, inside)

    def predicted(self, number: int) -> Tensor | None:
        """Where a class is predicted, ``(*cells)`` bool; None for a classifier."""
        if not self.unperturbed.is_dense:
            return None
        return self._predicted(self.unperturbed.output, self._classes[number].output)[0]

    def logits(self, output: Tensor) -> Tensor:
        """Mean logit of every class over its region, ``(rows, classes)``, differentiable."""
        return torch.stack([self._logit(output, each) for each in self._classes], dim=1)

    def dice(self, output: Tensor) -> Tensor:
        """Dice of every class, ``(rows, classes)``."""
        return torch.stack([self._dice(output, each) for each in self._classes], dim=1)

    def recall(self, output: Tensor) -> Tensor:
        """Share of the region of every class where it is predicted, ``(rows, classes)``."""
        shares = [
            self._predicted(output, each.output)[:, each.truth].double().mean(dim=1)
            for each in self._classes
        ]
        return torch.stack(shares, dim=1)

    def soft_dice(self, output: Tensor) -> Tensor:
        """Dice of probabilities instead of predictions, differentiable; 0 for a classifier."""
        return torch.stack([self._soft_dice(output, each) for each in self._classes], dim=1)

    def __call__(self, output: Tensor) -> Tensor:
        """Mean logits and Dice, ``(rows, 2 x classes)`` in float64, those of a class in a row."""
        both = torch.stack([self.logits(output).double(), self.dice(output)], dim=2)
        return both.flatten(1)

    def _logit(self, output: Tensor, each: _Class) -> Tensor:
        values = _class_logit(output, each.output.labels)
        if values.ndim == 1:
            return values
        return values[:, each.truth].mean(dim=1)  # NaN where the region is empty

    def _dice(self, output: Tensor, each: _Class) -> Tensor:
        if output.ndim == 2 or not each.truth.any():
            return torch.full((len(output),), torch.nan, dtype=torch.float64, device=output.device)
        predicted = (self._predicted(output, each.output) & each.inside).flatten(1)
        truth = each.truth.flatten()
        common = (predicted & truth).sum(dim=1).double()
        return 2 * common / (predicted.sum(dim=1) + truth.sum())

    def _soft_dice(self, output: Tensor, each: _Class) -> Tensor:
        if output.ndim == 2:
            return output.sum(dim=1) * 0
        labels = each.output.labels
        found = (probability_of(output, label, self._activation) for label in labels)
        probability = (torch.stack(list(found)).sum(dim=0) * each.inside).flatten(1)
        common = (probability * each.truth.flatten()).sum(dim=1)
        return 2 * common / (probability.sum(dim=1) + each.truth.sum())

    def _predicted(self, output: Tensor, asked: ClassOutput) -> Tensor:
        masks = [predicted_mask(output, label, self._activation, 0.5) for label in asked.labels]
        return torch.stack(masks).any(dim=0)


def _class_logit(output: Tensor, labels: Sequence[int]) -> Tensor:
    """The logit of one class or of several together, ``(rows, *cells)``."""
    if output.shape[1] == 1:
        return output[:, 0] if labels[0] == 1 else -output[:, 0]
    if len(labels) == 1:
        return output[:, labels[0]]
    return torch.logsumexp(output[:, list(labels)], dim=1)
