"""Links between concepts: from squared changes to strengths, signs and significance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxplain.concepts.links.measure import EdgeMeasurement, null_key
from voxplain.concepts.links.nodes import ConceptUnits, Edge
from voxplain.concepts.links.significance import (
    Array,
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
    q: float
    survives: bool
    screened: bool


@dataclass(frozen=True, eq=False)
class LinkMatrix:
    """Links along one edge.

    Attributes:
        edge: The edge.
        sources: Names of its nodes.
        targets: Likewise.
        links: ``[source][target]``.
    """

    edge: Edge
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    links: tuple[tuple[Link, ...], ...]

    def array(self, what: Literal["necessity", "sufficiency", "weight", "p", "q"]) -> Array:
        """One number of all links, ``(sources, targets)``."""
        return np.array([[getattr(link, what) for link in row] for row in self.links])


@dataclass(frozen=True, eq=False)
class _Raw:
    """Links of one edge before adjustment over all edges."""

    measured: EdgeMeasurement
    rows: list[list[Link]]


def matrices(
    measured: Sequence[EdgeMeasurement], alpha: float, seed: int
) -> tuple[LinkMatrix, ...]:
    """Links of all edges, with p values adjusted over all of them.

    Args:
        measured: The edges, with all cases taken in.
        alpha: False discovery rate.
        seed: Of resamples.
    """
    raw = [_Raw(each, _links(each, seed)) for each in measured]
    flat = [link for each in raw for row in each.rows for link in row]
    adjusted = iter(benjamini_hochberg([link.p for link in flat]))
    return tuple(
        LinkMatrix(
            each.measured.edge,
            tuple(node.name for node in each.measured.sources),
            each.measured.names,
            tuple(tuple(_judged(link, next(adjusted), alpha) for link in row) for row in each.rows),
        )
        for each in raw
    )


def _judged(link: Link, q: float, alpha: float) -> Link:
    clear = link.interval is None or link.interval[0] > link.null
    survives = math.isfinite(q) and q <= alpha and link.weight > 0 and clear
    return Link(**{**vars(link), "q": q, "survives": survives})


def _links(measured: EdgeMeasurement, seed: int) -> list[list[Link]]:
    sums = measured.sums
    found, interval = sums.strengths(), sums.interval(seed)
    signs = _signs(measured)
    rows: list[list[Link]] = []
    for index, source in enumerate(measured.sources):
        if index not in measured.kept:
            rows.append([_screened(source.name, target) for target in measured.names])
            continue
        at, row = measured.kept.index(index), []
        for number, name in enumerate(measured.names):
            weight, null = float(found.weight[at, number]), _null(measured, source, number)
            known = null[np.isfinite(null)]
            bounds = (
                None
                if interval is None
                else (float(interval[0][at, number]), float(interval[1][at, number]))
            )
            row.append(
                Link(
                    source.name,
                    name,
                    float(found.necessity[at, number]),
                    float(found.sufficiency[at, number]),
                    weight,
                    signs[at][number] if weight > 0 else 0,
                    bounds,
                    float(np.quantile(known, 0.95)) if len(known) else math.nan,
                    p_value(weight, null),
                    math.nan,
                    False,
                    False,
                )
            )
        rows.append(row)
    return rows


def _screened(source: str, target: str) -> Link:
    nan = math.nan
    return Link(source, target, nan, nan, 0.0, 0, None, nan, 1.0, nan, False, True)


def _signs(measured: EdgeMeasurement) -> list[list[Sign]]:
    """Of the mean change of a target in the direction in which its source was changed."""
    own = np.stack(measured.source_change)[:, :, None]
    together = (own * np.stack(measured.target_change)).sum(axis=0)
    return [[_sign(value) for value in row] for row in together]


def _sign(value: float) -> Sign:
    return 1 if value > 0 else -1 if value < 0 else 0


def _null(measured: EdgeMeasurement, source: ConceptUnits, target: int) -> Array:
    """Weights between random sets of the sizes of both nodes.

    The target is itself where it is a class or spanned by directions.
    """
    sums = measured.null.get(null_key(source))
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
