"""Entropies of sampled probabilities: total, aleatoric and epistemic uncertainty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from voxplain.targets import UnperturbedOutput
from voxplain.targets.field import SEPARATE, Activation, probabilities

KINDS = ("total", "aleatoric", "epistemic")


@dataclass(frozen=True)
class Classes:
    """What the probabilities of an output are of.

    Attributes:
        names: Of the classes, in the order of the probabilities.
        exclusive: Whether exactly one class holds, so that their probabilities sum to 1.
        binary: Whether the output has one channel, so that class 0 is the rest.
        label: The class that is asked about against the rest; None for all.
        threshold: Above which a class is predicted, where this is decided for each class alone.
        activation: What makes probabilities of the output.
    """

    names: tuple[str, ...]
    exclusive: bool
    binary: bool
    label: int | None
    threshold: float
    activation: Activation

    @classmethod
    def of(
        cls, seen: UnperturbedOutput, label: int | None, activation: Activation, threshold: float
    ) -> Classes:
        """The classes of an output.

        Raises:
            TargetError: If it is not known whether the output holds probabilities.
        """
        channels = seen.output.shape[1]
        resolved = seen.activation(activation)
        known, numbers = seen.classes, range(max(2, channels))
        return cls(
            names=tuple(known[k] if k < len(known) else f"class {k}" for k in numbers),
            exclusive=channels == 1 or resolved not in SEPARATE,
            binary=channels == 1,
            label=label,
            threshold=threshold,
            activation=resolved,
        )

    @property
    def objects(self) -> tuple[int, ...]:
        """The classes that objects are of: the one that is asked about, or all but a background."""
        if self.label is not None:
            return (self.label,)
        return tuple(range(len(self.names)))[1 if self.exclusive else 0 :]

    def probabilities(self, output: Tensor) -> Tensor:
        """Of an output ``(K, *cells)``, ``(classes, *cells)`` float64 in [0, 1]."""
        found = probabilities(output[None].double(), self.activation)[0].clamp(0, 1)
        return torch.cat([1 - found, found]) if self.binary else found

    def entropy(self, probability: Tensor) -> Tensor:
        """Entropy in nats of ``(classes, *cells)``, ``(*cells)``.

        Of classes that may overlap, the sum of the entropies of each; of one class, that of it and
        the rest.
        """
        if self.label is not None:
            own = probability[self.label]
            return _terms(own) + _terms(1 - own)
        if self.exclusive:
            return _terms(probability).sum(dim=0)
        return (_terms(probability) + _terms(1 - probability)).sum(dim=0)

    def predicted(self, probability: Tensor) -> Tensor:
        """Where each class is predicted, ``(classes, *cells)`` bool."""
        if self.binary:
            above = probability[1] > self.threshold
            return torch.stack([~above, above])
        if not self.exclusive:
            return probability > self.threshold
        best = probability.argmax(dim=0)
        return torch.stack([best == label for label in range(len(probability))])


def _terms(probability: Tensor) -> Tensor:
    return -torch.xlogy(probability, probability)


@dataclass(eq=False)
class SampledProbabilities:
    """Sums over samples of probabilities and of their entropies; one sample in memory.

    Attributes:
        classes: What the probabilities are of.
        count: Samples that show each voxel, ``(*spatial)`` int64.
    """

    classes: Classes
    count: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.long))
    _sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    _entropies: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def add(self, probability: Tensor, seen: Tensor) -> None:
        """Adds a sample.

        Args:
            probability: ``(classes, *spatial)`` float64.
            seen: Voxels that the sample shows, ``(*spatial)`` bool; the others do not count.
        """
        self.count = self.count + seen.long()
        self._sum = self._sum + torch.where(seen, probability, 0)
        self._entropies = self._entropies + torch.where(seen, self.classes.entropy(probability), 0)

    @property
    def mean(self) -> Tensor:
        """P = mean p_t, ``(classes, *spatial)``; 0 where no sample shows a voxel."""
        return self._sum / self.count.clamp_min(1)

    def uncertainties(self) -> Iterator[tuple[str, Tensor]]:
        """Total H[p], aleatoric E H[p_t] and epistemic H[p] - E H[p_t], each ``(*spatial)``."""
        total = torch.where(self.count > 0, self.classes.entropy(self.mean), 0)
        aleatoric = self._entropies / self.count.clamp_min(1)
        yield "total", total
        yield "aleatoric", aleatoric
        yield "epistemic", (total - aleatoric).clamp_min(0)  # below 0 by rounding alone
