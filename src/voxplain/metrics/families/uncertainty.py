"""Uncertainty: how far map and prediction scatter when nothing that matters has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.engine.baselines import intensity_range
from voxplain.engine.context import Context
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.curves import rank_correlation
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.queries.dropout import dropout_draw, dropout_layers
from voxplain.metrics.queries.perturbations import MEDICAL
from voxplain.metrics.re_explain import FieldMove, explain_again
from voxplain.models.precision import running_in
from voxplain.targets.base import probability_of

Source = Literal["augmentation", "dropout"]

_CHANGES = ("noise", "shift", "bias_field", "rotation")
"""What augmentation does, in turn."""


class _Scattered(Metric):
    family: ClassVar[str] = "robustness"
    direction: ClassVar[Direction] = "none"

    source: Source = Field(
        default="augmentation",
        description=(
            "`augmentation`: noise, shifts, bias fields and rotations, undone in the map; "
            "`dropout`: networks that leave out units"
        ),
    )
    draws: int = Field(default=8, ge=2)


@register
class MapUncertainty(_Scattered):
    """How far the map scatters under augmentation or dropout, relative to its size.

    Mean over voxels of the standard deviation of the map, divided by the mean magnitude of the
    map. In the facts the share of voxels whose deviation exceeds the magnitude of their mean:
    there the sign is not settled.
    """

    range: ClassVar[tuple[float | None, float | None]] = (0.0, None)
    name: Literal["map_uncertainty"] = "map_uncertainty"

    def queries(self, context: Context) -> tuple[Query, ...]:
        """One set of variants, explained by all methods together."""
        return (VariedMaps(self.source, self.draws),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Of the channel sums."""
        size = float(field.checked.abs().mean())
        found: dict[str, Spread] = context.run_query(self.queries(context.base)[0], field)
        if field.name not in found:
            raise Undefined("there is no method behind this map that could explain again")
        mean, deviation = found[field.name].mean, found[field.name].deviation
        unsettled = float((deviation > mean.abs()).double().mean())
        return Value(float(deviation.mean()) / size, facts={"unsettled": unsettled})


@register
class UncertaintyCorrelation(_Scattered):
    """Whether the map is strong where the prediction is uncertain.

    Spearman correlation of the magnitude of the map with the uncertainty of the probability of the
    class under augmentation or dropout, for dense outputs.
    """

    range: ClassVar[tuple[float | None, float | None]] = (-1.0, 1.0)
    chance: ClassVar[str] = "0"
    name: Literal["uncertainty_correlation"] = "uncertainty_correlation"
    uncertainty: Literal["deviation", "entropy"] = Field(
        default="deviation", description="of the probability, or entropy of its mean"
    )

    def queries(self, context: Context) -> tuple[Query, ...]:
        """The predictions for the same variants, once for all maps."""
        return (VariedPredictions(self.source, self.draws),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Voxel by voxel."""
        sizes = field.checked.abs()
        found: Spread = context.run_query(self.queries(context.base)[0], field)
        uncertain = found.deviation if self.uncertainty == "deviation" else _entropy(found.mean)
        if not bool((uncertain != uncertain.flatten()[0]).any()):
            raise Undefined("the prediction is as uncertain at every voxel as at any other")
        return Value(rank_correlation(sizes, uncertain.to(sizes.device)))


def _entropy(chance: Tensor) -> Tensor:
    """Of having the class or not, in nats."""
    other: Tensor = 1 - chance
    return -(torch.xlogy(chance, chance) + torch.xlogy(other, other))


@dataclass(eq=False)
class Spread:
    """Mean and standard deviation of maps that come one by one.

    Attributes:
        count: How many came.
        mean: ``(*spatial)`` float64.
    """

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(()))
    _squares: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, map: Tensor) -> None:
        """One more ``(*spatial)`` (Welford, 1962)."""
        self.count += 1
        before = map.double() - self.mean
        self.mean = self.mean + before / self.count
        self._squares = self._squares + before * (map.double() - self.mean)

    @property
    def deviation(self) -> Tensor:
        """Estimated from at least two."""
        return (self._squares / (self.count - 1)).sqrt()


@dataclass(frozen=True)
class _Varied(Query):
    """The image under small changes, or the network without some units.

    Attributes:
        source: Which of both.
        draws: How many variants.
    """

    source: Source
    draws: int

    def expected(self, context: Context) -> int:
        """One per variant."""
        return self.draws


@dataclass(frozen=True)
class VariedMaps(_Varied):
    """The maps of the variants, brought back to the image, by all methods together."""

    explains: ClassVar[bool] = True

    def run(self, context: MetricContext, field: MapField) -> dict[str, Spread]:
        """By the key of the method."""
        found: dict[str, Spread] = {}
        for one in _variants(context, self.source, self.draws):
            for name, maps in explain_again(one.context, one.image[None], moved=one.moved).items():
                back = one.returned(maps[0]).double().sum(dim=0)
                found.setdefault(name, Spread()).add(back)
        return found


@dataclass(frozen=True)
class VariedPredictions(_Varied):
    """The probability of the class of the target for the variants, brought back to the image."""

    def run(self, context: MetricContext, field: MapField) -> Spread:
        """Of every voxel.

        Raises:
            Undefined: If the output has no such probability at every voxel of the image.
        """
        row, bound = context.item.row, context.bound
        label = bound.field.label_of(row)
        if not bound.seen.is_dense or label is None or bound.field.layer is not None:
            raise Undefined("the target is not about a class of a dense output")
        if tuple(bound.seen.output.shape[2:]) != context.base.shape:
            raise Undefined("the output has another resolution than the image")
        found = Spread()
        for one in _variants(context, self.source, self.draws):
            model, context.forwards = one.context.base.model, context.forwards + 1
            with torch.inference_mode(), running_in(model.precision, model.device):
                output = model.output(one.image[None], context.base.spacing).double()
            found.add(one.returned(probability_of(output, label, bound.target.activation))[0])
        return found


@dataclass(frozen=True, eq=False)
class _Variant:
    """What is asked instead of the image.

    Attributes:
        context: About the network that is asked.
        image: ``(C, *spatial)``.
        returned: Brings a map of it, ``(C, *spatial)``, back to the image.
        moved: How the weights of the target follow.
    """

    context: MetricContext
    image: Tensor
    returned: Callable[[Tensor], Tensor] = lambda map: map
    moved: FieldMove | None = None


def _variants(context: MetricContext, source: Source, draws: int) -> Iterator[_Variant]:
    make = _augmented if source == "augmentation" else _without_units
    return (make(context, draw) for draw in range(draws))


def _augmented(context: MetricContext, draw: int) -> _Variant:
    image, key = context.item.image, context.item.key
    if not bool(intensity_range(image).any()):
        raise Undefined("the image is constant, so that no change of it shows")
    turn, change = divmod(draw, len(_CHANGES))
    around = MEDICAL[_CHANGES[change]].on(context.spacing)
    return _Variant(
        context,
        around.changed(image, key, turn),
        lambda map: around.returned(map, turn),
        around.moved(turn, context.base.shape),
    )


def _without_units(context: MetricContext, draw: int) -> _Variant:
    model, item = context.base.model, context.item
    if not dropout_layers(model.network):
        raise Undefined(
            "the network has no dropout layer (nn.Dropout, nn.Dropout1d, 2d or 3d with p > 0) that "
            "could leave out units; source: augmentation works for every network"
        )
    return _Variant(context.with_model(dropout_draw(model, item.key, draw)), item.image)


__all__ = ["MapUncertainty", "Spread", "UncertaintyCorrelation", "VariedMaps", "VariedPredictions"]
