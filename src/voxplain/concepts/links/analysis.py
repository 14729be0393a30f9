"""How concepts of one layer lead to concepts of the next, by interventions on their units."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from voxplain.concepts.links.class_scores import ClassScores
from voxplain.concepts.links.donors import Donors, ReplacedBy
from voxplain.concepts.links.matrix import Link, LinkMatrix, matrices
from voxplain.concepts.links.measure import CaseOnce, EdgeMeasurement
from voxplain.concepts.links.nodes import (
    ClassOutput,
    ConceptUnits,
    Edge,
    check_channels,
    check_nodes,
    consecutive,
)
from voxplain.engine.cohort import Cohort
from voxplain.engine.context import Context
from voxplain.engine.interventions import resized
from voxplain.engine.observation import observe
from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError
from voxplain.models.model import Model
from voxplain.statistics import FEWEST


class LinkSettings(BaseModel):
    """How links are measured.

    Attributes:
        replaced_by: What values of units become.
        draws: Donors per case, of ``resample``.
        null_sets: Random sets of units per size of a node.
        screen: A source is replaced if its gradient estimate reaches this share of the strongest
            one for a target; 0 replaces all.
        screen_cases: Cases of the gradient screen.
        alpha: False discovery rate.
        seed: Of donors, random sets and resamples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    replaced_by: ReplacedBy = "resample"
    draws: int = Field(default=1, ge=1)
    null_sets: int = Field(default=200, ge=0)
    screen: float = Field(default=0.01, ge=0, lt=1)
    screen_cases: int = Field(default=4, ge=1)
    alpha: float = Field(default=0.05, gt=0, lt=1)
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Links:
    """All links of an analysis.

    Attributes:
        nodes: The concepts.
        outputs: The classes.
        matrices: Links by edge.
        settings: How they were measured.
        cases: Number of cases.
        remarks: What a reader has to know.
        control: The same analysis of a network with random weights, where one was given.
    """

    nodes: tuple[ConceptUnits, ...]
    outputs: tuple[ClassOutput, ...]
    matrices: tuple[LinkMatrix, ...]
    settings: LinkSettings
    cases: int
    remarks: tuple[str, ...] = ()
    control: Links | None = None

    def __iter__(self) -> Iterator[Link]:
        """All links, edge by edge."""
        return (link for matrix in self.matrices for row in matrix.links for link in row)

    @property
    def surviving(self) -> tuple[Link, ...]:
        """The links that random sets of units do not reach."""
        return tuple(link for link in self if link.survives)

    @property
    def collapses(self) -> bool | None:
        """Whether nothing survives on the network with random weights; None if not measured."""
        return None if self.control is None else not self.control.surviving


def link(
    model: Model | nn.Module,
    cohort: Cohort,
    nodes: Sequence[ConceptUnits],
    outputs: Sequence[ClassOutput] = (),
    *,
    edges: Sequence[Edge] = (),
    skips: Sequence[Edge] = (),
    settings: LinkSettings | None = None,
    control: Model | nn.Module | None = None,
) -> Links:
    """Measures links between concepts of analyzed layers, and from the last layer to classes.

    With the activation a_j of the target units C_j, r a replacement of the source layer, and T_j
    the squared change of a_j when the whole source layer is replaced:

    ``N_ij = E |a_j - a_j(do(C_i = r))|^2 / T_j``
    ``S_ij = 1 - E |a_j - a_j(do(all but C_i = r))|^2 / T_j``
    ``w_ij = sqrt(max(N_ij, 0) max(S_ij, 0))``

    For classes a_j is their mean logit over their region, or their Dice. Along a route the others
    are held at their clean value, and T_j is the effect on all routes, so that N and S of routes
    add up to those of the whole in an additive network.

    A link survives if random sets of units of both sizes, in the same layers, are hardly ever
    linked as strongly (p, adjusted over all links; a link that the gradient screen excludes counts
    with p = 1), and if its bootstrap interval lies above their 95th percentile. Random sets include
    the very units, so that in a small layer p cannot be small: with single units of K channels it
    is at least the share of pairs that are linked as strongly.

    All targets of a layer are measured in the same forwards; several sources are replaced in one
    batch; modules before the source run once per case.

    Args:
        model: The network under study, without windows.
        cohort: The cases; at least two for ``resample``.
        nodes: Concepts with their units. Layers that follow each other are linked.
        outputs: Classes, linked to the last layer.
        edges: Instead of consecutive layers.
        skips: Further edges: skip connections, each with what holds the other routes, such as
            those of :func:`~voxplain.concepts.links.skips.find_skips`.
        settings: How.
        control: The network with random weights, on which no link may survive.

    Raises:
        ConfigError: If a node names units that its layer does not have, or the cohort is too small.
        ModelError: With the nearest names, if a layer does not exist.
    """
    chosen, studied = settings or LinkSettings(), Model.of(model)
    check_nodes(nodes, outputs)
    measured = _measured(studied, cohort, nodes, outputs, (edges, skips), chosen)
    found = matrices(measured, chosen.alpha, chosen.seed)
    remarks = (*_remarks(cohort, chosen), *_power(found, chosen.alpha))
    result = Links(tuple(nodes), tuple(outputs), found, chosen, len(cohort), remarks)
    if control is None:
        return result
    other = link(control, cohort, nodes, outputs, edges=edges, skips=skips, settings=settings)
    return replace(result, control=other)


def _measured(
    model: Model,
    cohort: Cohort,
    nodes: Sequence[ConceptUnits],
    outputs: Sequence[ClassOutput],
    edges: tuple[Sequence[Edge], Sequence[Edge]],
    settings: LinkSettings,
) -> list[EdgeMeasurement]:
    if not len(cohort):
        raise ConfigError("links are measured over cases, and the cohort has none")
    context = Context.open(model, next(iter(cohort)).image)
    for node in nodes:
        check_channels(node, context.layers.channels(node.tap))
    ways = (*(edges[0] or consecutive(nodes, outputs, context)), *edges[1])
    measured = [_measurement(edge, nodes, outputs, settings) for edge in ways]
    measured = [each for each in measured if each.sources and (each.targets or each.outputs)]
    if not measured:
        raise ConfigError("no two analyzed layers follow each other, so there is nothing to link")
    once = _Cases(model, cohort, outputs, measured, settings)
    if settings.screen:
        for number, case in enumerate(once.all(1)):
            if number == settings.screen_cases:
                break
            for each in measured:
                each.estimate(case)
    for each in measured:
        each.choose()
    for case in once.all(settings.draws):
        for each in measured:
            each.add(case)
    return measured


def _measurement(
    edge: Edge,
    nodes: Sequence[ConceptUnits],
    outputs: Sequence[ClassOutput],
    settings: LinkSettings,
) -> EdgeMeasurement:
    return EdgeMeasurement(
        edge,
        tuple(node for node in nodes if node.tap == edge.source),
        tuple(node for node in nodes if edge.target is not None and node.tap == edge.target),
        tuple(outputs) if edge.target is None else (),
        settings.null_sets,
        settings.screen,
        settings.seed,
    )


class _Cases:
    """The cases of an analysis, each with its activations and those of its donor."""

    def __init__(
        self,
        model: Model,
        cohort: Cohort,
        outputs: Sequence[ClassOutput],
        measured: Sequence[EdgeMeasurement],
        settings: LinkSettings,
    ) -> None:
        self._model, self._cohort, self._outputs = model, cohort, outputs
        self._taps: tuple[Tap, ...] = tuple(
            dict.fromkeys(tap for each in measured for tap in each.taps)
        )
        self._donors = Donors(model, cohort, self._taps, settings.replaced_by, settings.seed)

    def all(self, draws: int) -> Iterator[CaseOnce]:
        for case in self._cohort:
            context = Context.open(self._model, case.image)
            clean = dict(observe(context, self._taps).values)
            scores = ClassScores(context, case, self._outputs) if self._outputs else None
            for draw in range(draws):
                donor = self._donors.of(case, context, draw)
                fitting = {tap: _fitted(donor[tap], clean[tap]) for tap in self._taps}
                yield CaseOnce(case, context, clean, fitting, scores)


def _fitted(values: Tensor, like: Tensor) -> Tensor:
    return resized(values, like.shape[1:]).to(like)


def _remarks(cohort: Cohort, settings: LinkSettings) -> tuple[str, ...]:
    patients = len({*cohort.patients})
    remarks = []
    if patients < FEWEST:
        remarks.append(
            f"{patients} patient{'s' * (patients != 1)}: intervals are given from {FEWEST} on, so "
            "links are judged against random sets alone"
        )
    if settings.replaced_by == "zero":
        remarks.append("values become 0, which layers after a normalization never see")
    if not settings.null_sets:
        remarks.append("no random sets were drawn, so no link can survive")
    return tuple(remarks)


def _power(found: Sequence[LinkMatrix], alpha: float) -> Iterator[str]:
    """A sentence where a link that is stronger than all random sets would not survive alone."""
    links = [link for matrix in found for row in matrix.links for link in row]
    known = [link for link in links if math.isfinite(link.p)]
    least = min((link.least_p for link in known if math.isfinite(link.least_p)), default=alpha)
    if least * len(known) > alpha:
        few = math.ceil(least * len(known) / alpha)
        words = f"at least {few} have to reach that for any to survive"
        yield (
            f"p cannot fall below {least:.2g} with so few random sets, so that of {len(known)} "
            f"links {words if few <= len(known) else 'none can survive'}"
        )
