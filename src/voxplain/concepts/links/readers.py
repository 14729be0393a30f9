"""What is measured at the end of an edge: changes of units of a layer, or of classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.concepts.links.class_scores import MEASURES, ClassScores
from voxplain.concepts.links.nodes import ClassOutput, ConceptUnits
from voxplain.engine.taps import Tap


@dataclass(frozen=True, eq=False)
class Effects:
    """What interventions did, per row and column.

    Attributes:
        squared: Squared change, summed over cells, ``(rows, columns)`` in float64.
        change: Mean change with its sign, likewise.
    """

    squared: Tensor
    change: Tensor


class EndReader(ABC):
    """Measures the end of an edge. Every node of it is the sum of some columns.

    Attributes:
        names: Of the nodes.
        members: ``(nodes, columns)``: 1 for the columns of a node.
        size: Squared size of every column on the unchanged image; far smaller changes are rounding.
    """

    names: tuple[str, ...]
    members: Tensor
    size: Tensor

    @abstractmethod
    def effects(self, values: Mapping[Tap, Tensor], output: Tensor | None) -> Effects:
        """What changed in some rows."""

    @abstractmethod
    def heads(self, value: Tensor) -> list[Tensor]:
        """One differentiable number per node, for the gradient screen."""


class UnitReader(EndReader):
    """Units of a layer: a column per channel, and one for each node of directions.

    Args:
        tap: The layer.
        clean: Its activation on the unchanged image, ``(K, *cells)``.
        nodes: Its nodes.
    """

    def __init__(self, tap: Tap, clean: Tensor, nodes: Sequence[ConceptUnits]) -> None:
        self._tap, self._clean = tap, clean
        self._nodes = tuple(nodes)
        spanning = [node for node in nodes if node.units.directions is not None]
        self._bases = [_basis(node, clean) for node in spanning]
        self.names = tuple(node.name for node in nodes)
        self.members = torch.zeros(len(nodes), len(clean) + len(spanning), dtype=torch.float64)
        for row, node in enumerate(nodes):
            own = [len(clean) + spanning.index(node)] if node in spanning else node.units.channels
            self.members[row, list(own)] = 1
        self.size = self._columns(clean[None])[0]

    def effects(self, values: Mapping[Tap, Tensor], output: Tensor | None) -> Effects:
        """Squared change of channels and of what lies in directions."""
        change = values[self._tap] - self._clean
        means = [change.flatten(2).mean(dim=2)]
        means += [_along(basis, change).flatten(1).mean(dim=1)[:, None] for basis in self._bases]
        return Effects(self._columns(change), torch.cat(means, dim=1).double())

    def heads(self, value: Tensor) -> list[Tensor]:
        """Mean energy of the units of every node."""
        return [node.units.part_of(value[0]).square().mean() for node in self._nodes]

    def _columns(self, value: Tensor) -> Tensor:
        energies = [value.flatten(2).square().sum(dim=2)]
        along = [_along(basis, value).flatten(1).square().sum(dim=1) for basis in self._bases]
        return torch.cat([*energies, *(each[:, None] for each in along)], dim=1).double()


class OutputReader(EndReader):
    """Classes of the output: a node for the mean logit of each, and one for its Dice.

    Args:
        scores: The classes on this case.
        outputs: Their names.
    """

    def __init__(self, scores: ClassScores, outputs: Sequence[ClassOutput]) -> None:
        self._scores = scores
        self._clean = scores(scores.unperturbed.output)[0]
        self.names = tuple(f"{each.name}: {what}" for each in outputs for what in MEASURES)
        self.members = torch.eye(len(self.names), dtype=torch.float64)
        self.size = self._clean.square().nan_to_num()

    def effects(self, values: Mapping[Tap, Tensor], output: Tensor | None) -> Effects:
        """Changes of mean logits and Dice; 0 where a case does not show the class."""
        assert output is not None
        change = (self._scores(output) - self._clean).nan_to_num()
        return Effects(change.square(), change)

    def heads(self, value: Tensor) -> list[Tensor]:
        """The mean logits, and Dice of probabilities."""
        logits, dice = self._scores.logits(value)[0], self._scores.soft_dice(value)[0]
        return [each for both in zip(logits, dice, strict=True) for each in both]


def _basis(node: ConceptUnits, like: Tensor) -> Tensor:
    """Orthonormal directions ``(D, K)`` that span those of a node."""
    assert node.units.directions is not None
    basis: Tensor = torch.linalg.qr(node.units.directions.to(like).T).Q
    return basis.T


def _along(basis: Tensor, value: Tensor) -> Tensor:
    along: Tensor = torch.einsum("dk,bk...->bd...", basis, value)
    return along
