"""Squared changes along one edge, over all cases: of concepts, of random sets, of whole layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from voxplain.concepts.links.class_scores import ClassScores
from voxplain.concepts.links.nodes import ClassOutput, ConceptUnits, Edge
from voxplain.concepts.links.readers import Effects, EndReader, OutputReader, UnitReader
from voxplain.concepts.links.significance import Array, CaseSums, numbers, random_sets
from voxplain.engine.cohort import CohortCase
from voxplain.engine.context import Context
from voxplain.engine.intervened_rows import InterventionRows, Row
from voxplain.engine.interventions import Replacement, UnitSet
from voxplain.engine.taps import Tap

Values = dict[Tap, Tensor]


@dataclass(frozen=True, eq=False)
class CaseOnce:
    """One case with all that edges need of it, computed once.

    Attributes:
        case: The case.
        context: The network and its image.
        clean: Activations on the unchanged image.
        donor: What replaces them.
        scores: The classes of the output; None where none are asked for.
    """

    case: CohortCase
    context: Context
    clean: Values
    donor: Values
    scores: ClassScores | None


@dataclass(eq=False)
class NullSums:
    """Squared changes by random sets of one size, summed over cases.

    Attributes:
        sets: The units.
        alone: ``(sets, columns)``.
        others: Likewise.
    """

    sets: list[UnitSet]
    alone: Array | None = None
    others: Array | None = None

    def add(self, alone: Array, others: Array) -> None:
        """Takes in one case."""
        self.alone = alone if self.alone is None else self.alone + alone
        self.others = others if self.others is None else self.others + others


@dataclass(eq=False)
class EdgeMeasurement:
    """What is measured along one edge, case by case.

    Args:
        edge: The edge.
        sources: Nodes of its layer.
        targets: Nodes of the later layer; empty for the output.
        outputs: Classes, for the output.
        null_sets: Random sets per size of a node.
        screen: Share of the strongest gradient estimate of a target below which a source is not
            replaced.
        seed: Of random sets.
    """

    edge: Edge
    sources: tuple[ConceptUnits, ...]
    targets: tuple[ConceptUnits, ...]
    outputs: tuple[ClassOutput, ...]
    null_sets: int
    screen: float
    seed: int
    names: tuple[str, ...] = ()
    members: Tensor = field(default_factory=lambda: torch.empty(0))
    null: dict[int, NullSums] = field(default_factory=dict)
    columns_route: Array = field(default_factory=lambda: np.zeros(0))
    columns_total: Array = field(default_factory=lambda: np.zeros(0))
    columns_size: Array = field(default_factory=lambda: np.zeros(0))
    source_change: list[Array] = field(default_factory=list)
    target_change: list[Array] = field(default_factory=list)
    estimates: list[Array] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    _cases: list[tuple[Array, Array, Array, Array, Array]] = field(default_factory=list)
    _patients: list[str] = field(default_factory=list)

    @property
    def taps(self) -> tuple[Tap, ...]:
        """All layers that are looked at or replaced."""
        ends = () if self.edge.target is None else (self.edge.target,)
        return tuple(dict.fromkeys((self.edge.source, self.edge.entry, *self.edge.hold, *ends)))

    def estimate(self, once: CaseOnce) -> None:
        """Takes in one case of the gradient screen: E |<r_i - a_i, dm_j/da_i>|."""
        reader, entry = self._reader(once), self.edge.entry
        rows = InterventionRows(once.context, (entry,))
        change = once.donor[entry] - once.clean[entry]
        found = [
            [float((node.units.part_of(change) * gradient).sum().abs()) for node in self.sources]
            for gradient in rows.gradients(entry, self.edge.target, reader.heads)
        ]
        self.names = reader.names
        # A class that the case does not show has no logit, and so no estimate.
        self.estimates.append(np.nan_to_num(np.array(found).T))

    def choose(self) -> None:
        """Decides which sources are replaced, from the estimates so far."""
        self.kept = list(range(len(self.sources)))
        if not self.estimates:
            return
        estimate = np.mean(self.estimates, axis=0)
        passed = estimate >= self.screen * estimate.max(axis=0, keepdims=True)
        self.kept = [source for source in self.kept if passed[source].any()]

    def add(self, once: CaseOnce) -> None:
        """Takes in one case."""
        reader = self._reader(once)
        self._prepare(reader, len(once.clean[self.edge.source]))
        chosen = [self.sources[index].units for index in self.kept]
        drawn = [units for null in self.null.values() for units in null.sets]
        effects = self._effects(once, reader, chosen + drawn)
        self._keep(once, reader, effects, len(chosen))

    def _reader(self, once: CaseOnce) -> EndReader:
        if self.edge.target is None:
            assert once.scores is not None
            return OutputReader(once.scores, self.outputs)
        return UnitReader(self.edge.target, once.clean[self.edge.target], self.targets)

    def _prepare(self, reader: EndReader, channels: int) -> None:
        """At the first case, when the channels of the layers are known."""
        if self._patients:
            return
        self.names, self.members = reader.names, reader.members
        columns = len(reader.size)
        self.columns_route, self.columns_total, self.columns_size = np.zeros((3, columns))
        for node in (self.sources[index] for index in self.kept):
            key = null_key(node)
            if self.null_sets and key not in self.null:
                self.null[key] = NullSums(random_sets(node, channels, self.null_sets, self.seed))

    def _effects(self, once: CaseOnce, reader: EndReader, sets: Sequence[UnitSet]) -> Effects:
        """Of the whole layer on all routes and on this one, of each set, and of all but each."""
        rows = [self._whole(once), self._row(once, None)]
        rows += [self._row(once, units, outside) for outside in (False, True) for units in sets]
        starts = tuple(dict.fromkeys((self.edge.source, self.edge.entry, *self.edge.hold)))
        ends = () if self.edge.target is None else (self.edge.target,)
        parts: list[Effects] = []
        InterventionRows(once.context, starts).run(
            rows,
            ends,
            lambda _, values, output: parts.append(reader.effects(values, output)),
            to_end=self.edge.target is None,
        )
        squared, change = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("squared", "change")
        )
        return Effects(squared, change)

    def _whole(self, once: CaseOnce) -> Row:
        source = self.edge.source
        return (Replacement(source, UnitSet(), once.donor[source], outside=True),)

    def _row(self, once: CaseOnce, units: UnitSet | None, outside: bool = False) -> Row:
        """Some units, all others, or all of them replaced on this route, the others held."""
        entry = self.edge.entry
        which = UnitSet() if units is None else units
        replaced = Replacement(entry, which, once.donor[entry], outside or units is None)
        held = (Replacement(tap, UnitSet(), once.clean[tap], True) for tap in self.edge.hold)
        return (replaced, *held)

    def _keep(self, once: CaseOnce, reader: EndReader, effects: Effects, chosen: int) -> None:
        squared, members = numbers(effects.squared), numbers(self.members)
        total, route = squared[:2]
        alone, others = np.split(squared[2:], 2)
        size = numbers(reader.size)
        nodes = [part @ members.T for part in (alone[:chosen], others[:chosen], route, total, size)]
        self._cases.append((nodes[0], nodes[1], nodes[2], nodes[3], nodes[4]))
        self._patients.append(once.case.patient)
        self.columns_route += route
        self.columns_total += total
        self.columns_size += size
        self._add_null(alone[chosen:], others[chosen:])
        share = members / np.maximum(members.sum(axis=1, keepdims=True), 1)
        self.target_change.append(numbers(effects.change)[2 : 2 + chosen] @ share.T)
        difference = once.donor[self.edge.entry] - once.clean[self.edge.entry]
        own = [node.units.part_of(difference).mean() for node in self._chosen]
        self.source_change.append(np.array([float(each) for each in own]))

    @property
    def _chosen(self) -> list[ConceptUnits]:
        return [self.sources[index] for index in self.kept]

    def _add_null(self, alone: Array, others: Array) -> None:
        start = 0
        for null in self.null.values():
            rows = slice(start, start + len(null.sets))
            null.add(alone[rows], others[rows])
            start = rows.stop

    @property
    def sums(self) -> CaseSums:
        """Squared changes by case, of the sources that were replaced."""
        parts = zip(*self._cases, strict=True)
        alone, others, route, total, size = (np.stack(part) for part in parts)
        return CaseSums(alone, others, route, total, size, tuple(self._patients))


def null_key(node: ConceptUnits) -> int:
    """Nodes of one key share their random sets; those of directions have negative ones."""
    return node.size if node.units.directions is None else -node.size
