"""Links between concepts: from squared changes to strengths, signs and significance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from voxplain.concepts.links.measure import EdgeMeasurement, null_key
from voxplain.concepts.links.nodes import Edge
from voxplain.concepts.links.significance import (
    Array,
    Strengths,
    membership,
    p_value,
    random_sets,
    strengths,
)
from voxplain.statistics import benjamini_hochberg

Sign = Literal[-1, 0, 1]


@dataclass(frozen=True)
class Link:
    """The effect of one concept on a concept of a later layer, or on a class.

    Attributes:
        source: Name of the node.
        target: Name of the node; ``"NAME: logit"`` or ``"NAME: dice"`` for classes.
        necessity: N, the share of the effect of the whole layer that replacing these units has;
            NaN where the whole layer has none.
        sufficiency: S, the share of it that these units keep away when all others are replaced.
        weight: w = sqrt(max(N, 0) max(S, 0)).
        sign: 1 where the target rises as the source does, -1 where it falls.
        interval: 95 % bootstrap interval of w over patients; None below 8 patients.
        null: 95th percentile of w between random sets of equal sizes.
        p: Share of such sets that are linked as strongly.
        least_p: The smallest p that their number allows; NaN without them.
        q: The same, adjusted over all links of the analysis (Benjamini-Hochberg).
        survives: Whether q is at most the rate asked for, and the interval lies above the null.
        screened: Whether the gradient screen excluded it, so that nothing was replaced.
    """

    source: str
    target: str
    necessity: float
    sufficiency: float
    weight: float
    sign: Sign
    interval: tuple[float, float] | None
    null: float
    p: float
    least_p: float = math.nan
    q: float = math.nan
    survives: bool = False
    screened: bool = False


@dataclass(frozen=True, eq=False)
class LinkMatrix:
    """Links along one edge.

    Attributes:
        edge: The edge.
        sources: Names of its nodes.
        targets: Likewise.
        links: ``[source][target]``.
        share: Part of the effect of the whole source layer that this route alone has, mean over
            the targets; 1 where nothing is held, NaN where the layer has no effect.
    """

    edge: Edge
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    links: tuple[tuple[Link, ...], ...]
    share: float = math.nan

    def array(self, what: Literal["necessity", "sufficiency", "weight", "p", "q"]) -> Array:
        """One number of all links, ``(sources, targets)``."""
        return np.array([[getattr(link, what) for link in row] for row in self.links])


def matrices(
    measured: Sequence[EdgeMeasurement], alpha: float, seed: int
) -> tuple[LinkMatrix, ...]:
    """Links of all edges, with p values adjusted over all of them.

    Args:
        measured: The edges, with all cases taken in.
        alpha: False discovery rate.
        seed: Of resamples.
    """
    found = [_Found.of(each, seed) for each in measured]
    rows = [_links(each) for each in found]
    flat = [link for edge in rows for row in edge for link in row]
    adjusted = iter(benjamini_hochberg([link.p for link in flat]))
    return tuple(
        LinkMatrix(
            each.edge,
            tuple(node.name for node in each.sources),
            each.names,
            tuple(tuple(_judged(link, next(adjusted), alpha) for link in row) for row in edge),
            of_edge.share,
        )
        for each, of_edge, edge in zip(measured, found, rows, strict=True)
    )


def _judged(link: Link, q: float, alpha: float) -> Link:
    clear = link.interval is None or link.interval[0] > link.null
    survives = math.isfinite(q) and q <= alpha and link.weight > 0 and clear
    return replace(link, q=q, survives=survives)


def _links(found: _Found) -> list[list[Link]]:
    measured = found.measured
    return [
        [
            found.link(index, number) if index in measured.kept else _screened(source.name, target)
            for number, target in enumerate(measured.names)
        ]
        for index, source in enumerate(measured.sources)
    ]


@dataclass(frozen=True, eq=False)
class _Found:
    """What is known of all links of an edge, in arrays of the sources that were replaced."""

    measured: EdgeMeasurement
    strengths: Strengths
    interval: tuple[Array, Array] | None
    signs: list[list[Sign]]
    share: float

    @classmethod
    def of(cls, measured: EdgeMeasurement, seed: int) -> _Found:
        sums = measured.sums
        return cls(measured, sums.strengths(), sums.interval(seed), _signs(measured), sums.share)

    def link(self, source: int, target: int) -> Link:
        at = self.measured.kept.index(source), target
        weight, null = float(self.strengths.weight[at]), _null(self.measured, source, target)
        known = null[np.isfinite(null)]
        return Link(
            source=self.measured.sources[source].name,
            target=self.measured.names[target],
            necessity=float(self.strengths.necessity[at]),
            sufficiency=float(self.strengths.sufficiency[at]),
            weight=weight,
            sign=self.signs[at[0]][target] if weight > 0 else 0,
            interval=self._bounds(at),
            null=float(np.quantile(known, 0.95)) if len(known) else math.nan,
            p=p_value(weight, null),
            least_p=1 / (1 + len(known)) if len(known) else math.nan,
        )

    def _bounds(self, at: tuple[int, int]) -> tuple[float, float] | None:
        if self.interval is None:
            return None
        low, high = self.interval
        return float(low[at]), float(high[at])


def _screened(source: str, target: str) -> Link:
    nan = math.nan
    return Link(source, target, nan, nan, 0.0, 0, None, nan, 1.0, screened=True)


def _signs(measured: EdgeMeasurement) -> list[list[Sign]]:
    """Of the mean change of a target in the direction in which its source was changed."""
    own = np.stack(measured.source_change)[:, :, None]
    together = (own * np.stack(measured.target_change)).sum(axis=0)
    return [[_sign(value) for value in row] for row in together]


def _sign(value: float) -> Sign:
    return 1 if value > 0 else -1 if value < 0 else 0


def _null(measured: EdgeMeasurement, source: int, target: int) -> Array:
    """Weights between random sets of the sizes of both nodes.

    The target is itself where it is a class or spanned by directions.
    """
    sums = measured.null.get(null_key(measured.sources[source]))
    if sums is None or sums.alone is None or sums.others is None:
        return np.zeros(0)
    members = _target_sets(measured, target)
    parts = (sums.alone, sums.others, measured.columns_route, measured.columns_total)
    sized = [part @ members.T for part in (*parts, measured.columns_size)]
    return strengths(sized[0], sized[1], sized[2], sized[3], sized[4]).weight.ravel()


def _target_sets(measured: EdgeMeasurement, target: int) -> Array:
    """``(sets, columns)``: random sets of channels as large as a target, or the target itself."""
    columns = len(measured.columns_size)
    node = measured.targets[target] if measured.targets else None
    if node is None or node.units.directions is not None:
        return np.asarray(measured.members[target : target + 1].numpy())
    spanning = sum(each.units.directions is not None for each in measured.targets)
    channels = columns - spanning
    sets = random_sets(node, channels, measured.null_sets, measured.seed)
    return membership(sets, columns)
