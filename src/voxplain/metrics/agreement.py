"""Agreement: of methods with each other, and of networks that should have learned the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from voxplain.attribution.scene import Scene
from voxplain.metrics.curves import rank_correlation, ranks
from voxplain.metrics.fellow_maps import MapsOfFellows
from voxplain.metrics.fellows import Role
from voxplain.metrics.field import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.question import Probe, Question
from voxplain.metrics.randomization.measures import Measure
from voxplain.metrics.randomization.similarity import Similarity, similarity


class _Agreement(Metric):
    family: ClassVar[str] = "agreement"
    direction: ClassVar[Direction] = "none"
    range: ClassVar[tuple[float | None, float | None]] = (-1.0, 1.0)


@register
class MethodAgreement(_Agreement):
    """How alike the order of voxels is in the maps of the other methods.

    Mean Spearman correlation; every pair and Kendall's W of all methods in the facts.
    """

    name: Literal["method_agreement"] = "method_agreement"

    def score(self, field: MapField, question: Question) -> Value:
        """The mean over the other maps that say anything."""
        field.checked  # noqa: B018 - raises for maps that say nothing
        others = {each.name: each for each in _telling(question) if each.name != field.name}
        if not others:
            raise Undefined("there is no other map to agree with")
        found: dict[str, float] = {}
        for name, other in others.items():
            pair = tuple(sorted((field.name, name)))
            found[name] = question.remembered(("agreement", pair), partial(_alike, field, other))
        together = question.remembered("kendall", lambda: _kendall(question))
        mean = sum(found.values()) / len(found)
        return Value(mean, facts={**found, "kendall_w": together})


def _telling(question: Question) -> list[MapField]:
    """The maps that have an order to compare with: neither constant nor NaN somewhere."""

    def tells(field: MapField) -> bool:
        try:
            return field.checked is not None
        except Undefined:
            return False

    return [each for each in question.fields.values() if tells(each)]


def _alike(field: MapField, other: MapField) -> float:
    return rank_correlation(field.checked, other.checked)


def _kendall(question: Question) -> float:
    """Kendall's coefficient of concordance of all maps, 1 if all rank the voxels alike."""
    rows = [ranks(each.values.flatten()) for each in _telling(question)]
    raters, items = len(rows), len(rows[0])
    spread = torch.stack(rows).sum(dim=0)
    return float(12 * (spread - spread.mean()).square().sum() / (raters**2 * (items**3 - items)))


class _OfNetworks(_Agreement):
    """The same method on other networks, for the same target."""

    direction: ClassVar[Direction] = "up"
    differs: ClassVar[Role]
    measure: Measure = "spearman"

    def probes(self, scene: Scene) -> tuple[Probe, ...]:
        """The maps of the networks that differ in this way, once for all methods."""
        return (MapsOfFellows(self.differs),)

    def score(self, field: MapField, question: Question) -> Value:
        """Mean similarity with the maps of the other networks."""
        alike = _alike_with(field, question, self.probes(question.scene)[0])
        values = _of_measure(alike, self.measure)
        return Value(_mean(values), facts=values)


@register
class SeedAgreement(_OfNetworks):
    """How alike the maps are of networks that differ by their training seed alone."""

    differs: ClassVar[Role] = "seed"
    name: Literal["seed_agreement"] = "seed_agreement"


@register
class ArchitectureAgreement(_OfNetworks):
    """How alike the maps are of networks of different architecture."""

    differs: ClassVar[Role] = "architecture"
    name: Literal["architecture_agreement"] = "architecture_agreement"


@register
class DataRandomization(Metric):
    """How much of the map is there when the network was trained on permuted labels.

    Similarity with the map of such a network, for which there was nothing to learn (Adebayo et
    al., 2018).
    """

    family: ClassVar[str] = "randomization"
    direction: ClassVar[Direction] = "down"
    range: ClassVar[tuple[float | None, float | None]] = (-1.0, 1.0)
    reference: ClassVar[str] = "Adebayo et al., 2018"
    name: Literal["data_randomization"] = "data_randomization"
    similarity: Measure = "spearman"

    def probes(self, scene: Scene) -> tuple[Probe, ...]:
        """The maps of the networks that learned nothing, once for all methods."""
        return (MapsOfFellows("labels"),)

    def score(self, field: MapField, question: Question) -> Value:
        """The mean over those networks; each of them, and all measures, in the facts."""
        alike = _alike_with(field, question, self.probes(question.scene)[0])
        values = _of_measure(alike, self.similarity)
        measures = {
            measure: sum(getattr(one, measure) for one in alike.values()) / len(alike)
            for measure in get_args(Measure)
        }
        return Value(_mean(values), facts={"networks": values, "measures": measures})


def _alike_with(field: MapField, question: Question, probe: Probe) -> dict[str, Similarity]:
    """How alike a map and that of each other network are.

    Raises:
        Undefined: If the map says nothing, has no method behind it, or there is no such network.
    """
    field.checked  # noqa: B018 - raises for maps that say nothing
    found: dict[str, dict[str, Tensor]] = question.answer(probe, field)
    if not all(field.name in maps for maps in found.values()):
        raise Undefined("there is no method behind this map that could explain again")
    return {name: similarity(field.values, maps[field.name]) for name, maps in found.items()}


def _of_measure(alike: Mapping[str, Similarity], measure: Measure) -> dict[str, float]:
    values = {name: float(getattr(one, measure)) for name, one in alike.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise Undefined(f"the map of the network {name} is constant, too small or not finite")
    return values


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


@register
class CompletenessResidual(Metric):
    """How far a map is from sharing out the whole change of the score.

    |sum - (S(x) - S(b))| / |S(x) - S(b)|, for methods that promise it.
    """

    family: ClassVar[str] = "faithfulness"
    direction: ClassVar[Direction] = "down"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, None)
    reference: ClassVar[str] = "Sundararajan et al., 2017"
    name: Literal["completeness_residual"] = "completeness_residual"

    def score(self, field: MapField, question: Question) -> Value:
        """As it was measured when the map was made."""
        if field.completeness is None:
            raise Undefined("the method does not promise completeness")
        return Value(field.completeness)


__all__ = [
    "ArchitectureAgreement",
    "CompletenessResidual",
    "DataRandomization",
    "MethodAgreement",
    "SeedAgreement",
]
