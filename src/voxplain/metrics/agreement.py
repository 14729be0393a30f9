"""Agreement: of methods with each other, and of networks that should have learned the same."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from voxplain.metrics.again import maps_again
from voxplain.metrics.curves import rank_correlation, ranks
from voxplain.metrics.field import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.question import Question
from voxplain.metrics.randomization.similarity import similarity


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
        """The mean over the other maps."""
        others = {name: f for name, f in question.fields.items() if name != field.name}
        if not others:
            raise Undefined("there is no other map to agree with")
        found: dict[str, float] = {}
        for name, other in others.items():
            pair = tuple(sorted((field.name, name)))
            found[name] = question.remembered(("agreement", pair), partial(_alike, field, other))
        together = question.remembered("kendall", lambda: _kendall(question))
        mean = sum(found.values()) / len(found)
        return Value(mean, facts={**found, "kendall_w": together})


def _alike(field: MapField, other: MapField) -> float:
    return rank_correlation(field.checked, other.checked)


def _kendall(question: Question) -> float:
    """Kendall's coefficient of concordance of all maps, 1 if all rank the voxels alike."""
    rows = [ranks(f.values.flatten()) for f in question.fields.values()]
    raters, items = len(rows), len(rows[0])
    spread = torch.stack(rows).sum(dim=0)
    return float(12 * (spread - spread.mean()).square().sum() / (raters**2 * (items**3 - items)))


class _OfNetworks(_Agreement):
    """The same method on other networks, for the same target."""

    direction: ClassVar[Direction] = "up"
    measure: Literal["spearman", "spearman_absolute", "ssim", "hog"] = "spearman"

    def score(self, field: MapField, question: Question) -> Value:
        """Mean similarity with the maps of the other networks."""
        field.checked  # noqa: B018 - raises for maps that say nothing
        if not question.networks:
            raise Undefined("there is no other network to agree with")
        found = question.remembered("other networks", lambda: _maps_of_others(question))
        if not all(field.name in maps for maps in found):
            raise Undefined("there is no method behind this map that could explain again")
        alike = [similarity(field.values, maps[field.name]) for maps in found]
        values = [float(getattr(one, self.measure)) for one in alike]
        names = [model.name for model in question.networks]
        return Value(sum(values) / len(values), facts=dict(zip(names, values, strict=True)))


@register
class SeedAgreement(_OfNetworks):
    """How alike the maps are of networks that differ by their training seed alone."""

    name: Literal["seed_agreement"] = "seed_agreement"


@register
class ArchitectureAgreement(_OfNetworks):
    """How alike the maps are of networks of different architecture."""

    name: Literal["architecture_agreement"] = "architecture_agreement"


def _maps_of_others(question: Question) -> list[dict[str, Tensor]]:
    image = question.item.image[None]
    return [
        {
            name: maps[0].double().sum(dim=0)
            for name, maps in maps_again(question.with_model(model), image).items()
        }
        for model in question.networks
    ]


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
    "MethodAgreement",
    "SeedAgreement",
]
