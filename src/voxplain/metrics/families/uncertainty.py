"""Uncertainty: how far map and prediction vary when nothing that matters has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.engine.baselines import intensity_range
from voxplain.engine.context import Context
from voxplain.engine.variants.dropout import NO_DROPOUT, dropout_draw, dropout_places
from voxplain.engine.variants.perturbations import MEDICAL
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.curves import rank_correlation
from voxplain.metrics.maps import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.re_explain import FieldMove, explain_again
from voxplain.targets.base import probability_of

Source = Literal["augmentation", "dropout"]

_CHANGES = ("noise", "shift", "bias_field", "rotation")
"""The changes of augmentation, in turn."""


class _SpreadOverVariants(Metric):
    """Reads the spread of maps or predictions over variants of image or network."""

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
class MapUncertainty(_SpreadOverVariants):
    """How far the map varies under augmentation or dropout, relative to its size.

    Mean over voxels of the standard deviation of the map, divided by the mean magnitude of the
    map. The facts hold the share of voxels whose deviation exceeds the magnitude of their mean, so
    that their sign is not settled.
    """

    range: ClassVar[tuple[float | None, float | None]] = (0.0, None)
    name: Literal["map_uncertainty"] = "map_uncertainty"

    def queries(self, context: Context) -> tuple[Query, ...]:
        """One set of variants, explained by all methods together."""
        return (VariedMaps(self.source, self.draws),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        size = float(field.require_informative().abs().mean())
        spreads: dict[str, Spread] = context.run_query(self.queries(context.engine)[0])
        if field.name not in spreads:
            raise Undefined("this map has no method that could explain again")
        mean, deviation = spreads[field.name].mean, spreads[field.name].deviation
        unsettled = float((deviation > mean.abs()).double().mean())
        return Value(float(deviation.mean()) / size, facts={"unsettled": unsettled})


@register
class UncertaintyCorrelation(_SpreadOverVariants):
    """Whether the map is strong where the prediction is uncertain.

    Spearman correlation over the voxels of the magnitude of the map with the uncertainty of the
    probability of the class under augmentation or dropout, for dense outputs.
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
        magnitudes = field.require_informative().abs()
        spread: Spread = context.run_query(self.queries(context.engine)[0])
        deviation = self.uncertainty == "deviation"
        uncertainty = spread.deviation if deviation else _binary_entropy(spread.mean)
        if not bool((uncertainty != uncertainty.flatten()[0]).any()):
            raise Undefined("the uncertainty of the prediction is the same at every voxel")
        return Value(rank_correlation(magnitudes, uncertainty.to(magnitudes.device)))


def _binary_entropy(probability: Tensor) -> Tensor:
    """Entropy of a probability and its complement, in nats."""
    complement: Tensor = 1 - probability
    return -(torch.xlogy(probability, probability) + torch.xlogy(complement, complement))


@dataclass(eq=False)
class Spread:
    """Running mean and standard deviation of maps (Welford, 1962).

    Attributes:
        count: How many maps were added.
        mean: ``(*spatial)`` float64.
    """

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(()))
    _squares: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, values: Tensor) -> None:
        """Adds a map ``(*spatial)``."""
        self.count += 1
        difference = values.double() - self.mean
        self.mean = self.mean + difference / self.count
        self._squares = self._squares + difference * (values.double() - self.mean)

    @property
    def deviation(self) -> Tensor:
        """Sample standard deviation of at least two maps, ``(*spatial)``."""
        return (self._squares / (self.count - 1)).sqrt()


@dataclass(frozen=True)
class _VariantQuery(Query):
    """The image under small changes, or the network without some units.

    Attributes:
        source: Which of the two.
        draws: How many variants.
    """

    source: Source
    draws: int

    def cost(self, context: Context) -> int:
        return self.draws


@dataclass(frozen=True)
class VariedMaps(_VariantQuery):
    """Spread of the maps of the variants on the grid of the image, by all methods together."""

    explains: ClassVar[bool] = True

    def run(self, context: MetricContext) -> dict[str, Spread]:
        """By the key of the method."""
        spreads: dict[str, Spread] = {}
        for variant in _variants(context, self.source, self.draws):
            maps = explain_again(variant.context, variant.image[None], moved=variant.moved)
            for name, values in maps.items():
                returned = variant.returned(values[0]).double().sum(dim=0)
                spreads.setdefault(name, Spread()).add(returned)
        return spreads


@dataclass(frozen=True)
class VariedPredictions(_VariantQuery):
    """Spread of the probability of the target's class, on the grid of the image."""

    def run(self, context: MetricContext) -> Spread:
        """Of every voxel.

        Raises:
            Undefined: If the output has no such probability at every voxel of the image.
        """
        bound = context.bound
        label = bound.field.label_of(context.input.row)
        if not bound.unperturbed.is_dense or label is None or bound.field.layer is not None:
            raise Undefined("the target is not about a class of a dense output")
        if not context.place.covers_all:
            raise Undefined(f"the output covers {context.place.in_words()}, and no others")
        spread = Spread()
        for variant in _variants(context, self.source, self.draws):
            model, context.forwards = variant.context.engine.model, context.forwards + 1
            with torch.inference_mode(), model.exact():
                output = model.output(variant.image[None], context.engine.spacing).double()
            probability = probability_of(output, label, bound.activation)
            spread.add(variant.returned(context.place.on_image(probability))[0])
        return spread


@dataclass(frozen=True, eq=False)
class _Variant:
    """An image and a network that replace the original ones.

    Attributes:
        context: Holds the network.
        image: ``(C, *spatial)``.
        returned: Moves a map of the variant, ``(C, *spatial)``, to the grid of the image.
        moved: How the weight field of the target follows.
    """

    context: MetricContext
    image: Tensor
    returned: Callable[[Tensor], Tensor] = lambda values: values
    moved: FieldMove | None = None


def _variants(context: MetricContext, source: Source, draws: int) -> Iterator[_Variant]:
    make = _augmented if source == "augmentation" else _without_units
    return (make(context, draw) for draw in range(draws))


def _augmented(context: MetricContext, draw: int) -> _Variant:
    image, key = context.input.image, context.input.key
    if not bool(intensity_range(image).any()):
        raise Undefined("the image is constant, so augmentation does not change it")
    repeat, change = divmod(draw, len(_CHANGES))
    around = MEDICAL[_CHANGES[change]].on(context.spacing)
    return _Variant(
        context,
        around.changed(image, key, repeat),
        lambda values: around.returned(values, repeat),
        around.moved(repeat, context.bound.unperturbed),
    )


def _without_units(context: MetricContext, draw: int) -> _Variant:
    model, image = context.engine.model, context.input
    if not dropout_places(model, image.image[None], context.spacing):
        raise Undefined(f"{NO_DROPOUT}; source: augmentation works for every network")
    return _Variant(context.with_model(dropout_draw(model, image.key, draw)), image.image)
