"""How strong links are, and whether random sets of units of equal size are linked as strongly."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxplain.concepts.links.nodes import ConceptUnits
from voxplain.engine.interventions import UnitSet
from voxplain.engine.randomness import generator
from voxplain.statistics import FEWEST

Array = NDArray[np.float64]
ROUNDING = 1e-9
"""Squared changes, relative to the squared size of what changes, that are none."""
_RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class Strengths:
    """Strengths of links, in arrays of one shape; NaN where the whole layer has no effect.

    Attributes:
        necessity: N.
        sufficiency: S.
        weight: sqrt(max(N, 0) max(S, 0)).
    """

    necessity: Array
    sufficiency: Array
    weight: Array


def strengths(alone: Array, others: Array, route: Array, total: Array, size: Array) -> Strengths:
    """Necessity and sufficiency from squared changes summed over cases.

    Args:
        alone: Where the units are replaced, D.
        others: Where all other units of the layer are.
        route: Where the whole layer is, along the route; equal to ``total`` where there is one.
        total: Where the whole layer is, along all routes, T.
        size: Squared size of what changes.
    """
    dead = total <= ROUNDING * size
    safe = np.where(dead, 1.0, total)
    necessity = np.where(dead, np.nan, alone / safe)
    sufficiency = np.where(dead, np.nan, (route - others) / safe)
    weight = np.sqrt(np.maximum(necessity, 0) * np.maximum(sufficiency, 0))
    return Strengths(necessity, sufficiency, weight)


def random_sets(node: ConceptUnits, channels: int, count: int, seed: int) -> list[UnitSet]:
    """Random sets of as many units as a node has; all there are where these are fewer."""
    source = generator(seed, "sets", node.tap.path, node.size, channels)
    if node.units.directions is not None:
        shape = (count, node.size, channels)
        return [UnitSet(directions=each) for each in torch.randn(shape, generator=source)]
    if math.comb(channels, node.size) <= count:
        every = itertools.combinations(range(channels), node.size)
        return [UnitSet(chosen) for chosen in every]
    return [_drawn(channels, node.size, source) for _ in range(count)]


def _drawn(channels: int, size: int, source: torch.Generator) -> UnitSet:
    return UnitSet(tuple(sorted(torch.randperm(channels, generator=source)[:size].tolist())))


def p_value(found: float, null: Array) -> float:
    """Share of random sets that reach a value, itself counted; NaN for NaN."""
    known = null[np.isfinite(null)]
    if not math.isfinite(found) or not len(known):
        return math.nan
    return float((1 + (known >= found).sum()) / (1 + len(known)))


def membership(sets: list[UnitSet], columns: int) -> Array:
    """``(sets, columns)``: 1 for the columns of the channels of each set."""
    table = np.zeros((len(sets), columns))
    for row, each in enumerate(sets):
        table[row, list(each.channels)] = 1
    return table


@dataclass(frozen=True, eq=False)
class CaseSums:
    """Squared changes of all links of an edge, case by case.

    Attributes:
        alone: ``(cases, sources, targets)``.
        others: Likewise.
        route: ``(cases, targets)``.
        total: Likewise.
        size: Likewise.
        patients: Of the cases.
    """

    alone: Array
    others: Array
    route: Array
    total: Array
    size: Array
    patients: tuple[str, ...]

    def strengths(self, counts: Array | None = None) -> Strengths:
        """Of all links ``(sources, targets)``; with cases counted so often, ``(n, ...)`` each.

        Args:
            counts: ``(n, cases)``.
        """
        weights = np.ones((1, len(self.patients))) if counts is None else counts
        alone, others, route, total, size = (
            np.tensordot(weights, part, axes=1)
            for part in (self.alone, self.others, self.route, self.total, self.size)
        )
        found = strengths(alone, others, route[:, None], total[:, None], size[:, None])
        if counts is not None:
            return found
        return Strengths(found.necessity[0], found.sufficiency[0], found.weight[0])

    @property
    def share(self) -> float:
        """Part of the effect of the whole layer that the route has, mean over the targets."""
        route, total = self.route.sum(axis=0), self.total.sum(axis=0)
        alive = total > ROUNDING * self.size.sum(axis=0)
        return float((route[alive] / total[alive]).mean()) if alive.any() else math.nan

    def interval(self, seed: int) -> tuple[Array, Array] | None:
        """95 % bootstrap interval of all weights, resampling patients; None below 8 of them."""
        names = list(dict.fromkeys(self.patients))
        if len(names) < FEWEST:
            return None
        source = np.random.default_rng(seed)
        picks = source.multinomial(len(names), [1 / len(names)] * len(names), size=_RESAMPLES)
        counts = picks[:, [names.index(patient) for patient in self.patients]].astype(np.float64)
        low, high = np.quantile(self.strengths(counts).weight, [0.025, 0.975], axis=0)
        return low, high


def numbers(tensor: Tensor) -> Array:
    """A tensor as an array of float64."""
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)
