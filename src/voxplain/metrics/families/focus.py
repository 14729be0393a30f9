"""Focus: images of several classes in one mosaic, and on which of them the evidence lies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from voxplain.engine.context import Context
from voxplain.engine.randomness import generator
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.re_explain import explain_again
from voxplain.models.precision import running_in
from voxplain.targets.links import predicted_mask

Place = tuple[slice, ...]


@register
class Focus(Metric):
    """Whether the evidence for a class lies on images of that class, when four share a mosaic.

    Share of the positive evidence on the two tiles that the network takes for the class of the
    target, beside two that it takes for others (Arias-Duart et al., 2022). Mosaics come in pairs
    that change these places over, so that a map which ignores what it sees scores exactly 0.5.
    """

    family: ClassVar[str] = "localization"
    direction: ClassVar[Direction] = "up"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
    chance: ClassVar[str] = "0.5"
    reference: ClassVar[str] = "Arias-Duart et al., 2022"
    name: Literal["focus"] = "focus"
    mosaics: int = Field(default=4, ge=2, multiple_of=2, description="how many are explained")

    def queries(self, context: Context) -> tuple[Query, ...]:
        """The mosaics, explained by all methods together."""
        return (Mosaics(self.mosaics),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Mean over the mosaics in which there is positive evidence."""
        field.checked  # noqa: B018 - raises for maps that say nothing
        found: Shares = context.run_query(self.queries(context.base)[0], field)
        if field.name not in found.of:
            raise Undefined("there is no method behind this map that could explain a mosaic")
        known = [share for share in found.of[field.name] if math.isfinite(share)]
        if not known:
            raise Undefined("the maps of the mosaics have no positive value")
        facts = {
            "mosaics": len(known),
            "others_of_the_class": found.alike,
            "of_other_classes": found.unlike,
        }
        return Value(sum(known) / len(known), facts=facts)


@dataclass(frozen=True)
class Shares:
    """What lies on the tiles of the class.

    Attributes:
        of: By the key of the method, the share of its positive evidence in every mosaic; NaN where
            there is none.
        alike: References of the class; where there is none, the image is in its mosaics twice.
        unlike: References of other classes.
    """

    of: Mapping[str, tuple[float, ...]]
    alike: int
    unlike: int


@dataclass(frozen=True)
class Mosaics(Query):
    """Explanations of mosaics of the image and its references, for the class of the target.

    Attributes:
        count: How many, in pairs.
    """

    explains: ClassVar[bool] = True

    count: int

    def expected(self, context: Context) -> int:
        """One explanation each; the class of every reference takes a forward."""
        return self.count

    def run(self, context: MetricContext, field: MapField) -> Shares:
        """Two mosaics at a time."""
        image, key = context.item.image, context.item.key
        alike, unlike = _references(context)
        places = quadrants(tuple(image.shape[1:]))
        found: dict[str, list[float]] = {}
        for pair in range(self.count // 2):
            source = generator(key, "mosaic", pair)
            own, others = _drawn(alike, 1, source) or [image], _drawn(unlike, 2, source)
            tiles, order = [image, *own, *others], torch.randperm(4, generator=source).tolist()
            for order_now in (order, [*order[2:], *order[:2]]):
                arranged = [places[number] for number in order_now]
                shown = mosaic(tiles, arranged)
                for name, map in explain_again(context, shown[None]).items():
                    found.setdefault(name, []).append(share_on(map[0], arranged[:2]))
        return Shares(
            {name: tuple(parts) for name, parts in found.items()}, len(alike), len(unlike)
        )


def quadrants(shape: tuple[int, ...]) -> list[Place]:
    """The four tiles of a mosaic, which halve the two longest axes.

    Raises:
        Undefined: If one of these has a single voxel.
    """
    first, second = sorted(sorted(range(len(shape)), key=lambda axis: (-shape[axis], axis))[:2])
    if min(shape[first], shape[second]) < 2:
        raise Undefined(f"an image of shape {shape} is too thin for a mosaic of two by two")
    found = []
    for rows in _halves(shape[first]):
        for columns in _halves(shape[second]):
            place = [slice(None)] * len(shape)
            place[first], place[second] = rows, columns
            found.append(tuple(place))
    return found


def mosaic(tiles: Sequence[Tensor], places: Sequence[Place]) -> Tensor:
    """Images ``(C, *spatial)`` side by side in one of their size.

    Each is averaged over the voxels that fall together, so that nothing of it is skipped.
    """
    whole = torch.empty_like(tiles[0])
    for tile, place in zip(tiles, places, strict=True):
        part = whole[(slice(None), *place)]
        part.copy_(functional.interpolate(tile[None], size=part.shape[1:], mode="area")[0])
    return whole


def share_on(map: Tensor, places: Sequence[Place]) -> float:
    """The share of the positive evidence of a map ``(C, *spatial)`` in some places, or NaN."""
    positive = map.double().sum(dim=0).clamp(min=0)
    total = float(positive.sum())
    return sum(float(positive[place].sum()) for place in places) / total if total else math.nan


def _halves(side: int) -> tuple[slice, slice]:
    return slice(0, side // 2), slice(side // 2, side)


def _drawn(images: Tensor, count: int, source: torch.Generator) -> list[Tensor]:
    """Some of the images, each once as long as there are enough; none of none."""
    order = torch.randperm(len(images), generator=source).tolist()
    return [images[number] for number in (order * count)[:count]]


def _references(context: MetricContext) -> tuple[Tensor, Tensor]:
    """Those that the network takes for the class of the target, and the others.

    Raises:
        Undefined: If there is no class to speak of, or too few images for a mosaic.
    """
    label, references = _label(context), context.item.references
    if references is None or not len(references):
        raise Undefined("a mosaic needs other images; pass some as references")
    taken = context.cached(("taken for", label), partial(_taken_for, label, context))
    if not taken[0]:
        raise Undefined(
            f"the image is not predicted as class {label}, and cannot stand for it in a mosaic"
        )
    if all(taken):
        raise Undefined(
            f"all references are predicted as class {label}; a mosaic needs some of other classes"
        )
    alike = torch.tensor(taken[1:], device=references.device)
    return references[alike], references[~alike]


def _label(context: MetricContext) -> int:
    """The class whose evidence is explained."""
    if context.bound.seen.is_dense:
        raise Undefined("a mosaic needs images of one class each, and this output is dense")
    if context.bound.target.signed_for == "predicted":
        return context.predicted_class
    label = context.bound.field.label_of(context.item.row)
    if label is None:
        raise Undefined("the target is not about a class, which the images of a mosaic have")
    return label


def _taken_for(label: int, context: MetricContext) -> list[bool]:
    """Whether the image, and each of its references, is predicted as a class."""
    model, target, item = context.base.model, context.bound.target, context.item
    found = []
    for image in (item.image, *(item.references if item.references is not None else ())):
        with torch.inference_mode(), running_in(model.precision, model.device):
            output = model.output(image[None], context.base.spacing)
        found.append(bool(predicted_mask(output, label, target.activation, target.threshold)))
    context.forwards += len(found)
    return found
