"""Focus: the share of the evidence that lies on images of the target's class, in a mosaic."""

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
from voxplain.metrics.maps import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.re_explain import explain_again
from voxplain.targets.field import predicted_mask

Tile = tuple[slice, ...]
"""Where one image lies in a mosaic."""


@register
class Focus(Metric):
    """Whether the evidence for a class lies on images of that class, when four share a mosaic.

    Share of the positive evidence on the two tiles whose images the network predicts as the class
    of the target, beside two that it predicts as others (Arias-Duart et al., 2022). Mosaics come
    in pairs that swap these tiles, so that a map that does not depend on the images scores exactly
    0.5.
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
        field.require_informative()
        evidence: MosaicEvidence = context.run_query(self.queries(context.engine)[0])
        if field.name not in evidence.shares:
            raise Undefined("this map has no method that could explain a mosaic")
        shares = [share for share in evidence.shares[field.name] if math.isfinite(share)]
        if not shares:
            raise Undefined("the maps of the mosaics have no positive value")
        facts = {
            "mosaics": len(shares),
            "others_of_the_class": evidence.same_class,
            "of_other_classes": evidence.other_classes,
        }
        return Value(sum(shares) / len(shares), facts=facts)


@dataclass(frozen=True)
class MosaicEvidence:
    """Where the evidence of the methods lies in mosaics.

    Attributes:
        shares: By the key of the method, the share of its positive evidence on tiles of the class,
            in every mosaic; NaN where there is none.
        same_class: Number of references of the class; without any, mosaics hold the image twice.
        other_classes: Number of references of other classes.
    """

    shares: Mapping[str, tuple[float, ...]]
    same_class: int
    other_classes: int


@dataclass(frozen=True)
class Mosaics(Query):
    """Explanations of mosaics of the image and its references, for the class of the target.

    Attributes:
        count: How many mosaics, in pairs.
    """

    explains: ClassVar[bool] = True

    count: int

    def cost(self, context: Context) -> int:
        """One explanation each; the forward for the class of every reference is not counted."""
        return self.count

    def run(self, context: MetricContext) -> MosaicEvidence:
        image, key = context.input.image, context.input.key
        same_class, other_classes = _references(context)
        tiles = quadrants(tuple(image.shape[1:]))
        shares: dict[str, list[float]] = {}
        for pair in range(self.count // 2):
            source = generator(key, "mosaic", pair)
            own = _drawn(same_class, 1, source) or [image]
            others = _drawn(other_classes, 2, source)
            images, order = [image, *own, *others], torch.randperm(4, generator=source).tolist()
            for tile_order in (order, [*order[2:], *order[:2]]):
                arranged = [tiles[number] for number in tile_order]
                maps = explain_again(context, mosaic(images, arranged)[None])
                for name, values in maps.items():
                    shares.setdefault(name, []).append(evidence_share(values[0], arranged[:2]))
        by_method = {name: tuple(own_shares) for name, own_shares in shares.items()}
        return MosaicEvidence(by_method, len(same_class), len(other_classes))


def quadrants(shape: tuple[int, ...]) -> list[Tile]:
    """The four tiles of a mosaic, which halve the two longest axes.

    Raises:
        Undefined: If one of these has a single voxel.
    """
    first, second = sorted(sorted(range(len(shape)), key=lambda axis: (-shape[axis], axis))[:2])
    if min(shape[first], shape[second]) < 2:
        raise Undefined(f"an image of shape {shape} is too thin for a mosaic of two by two")
    tiles = []
    for rows in _halves(shape[first]):
        for columns in _halves(shape[second]):
            tile = [slice(None)] * len(shape)
            tile[first], tile[second] = rows, columns
            tiles.append(tuple(tile))
    return tiles


def _halves(side: int) -> tuple[slice, slice]:
    return slice(0, side // 2), slice(side // 2, side)


def mosaic(images: Sequence[Tensor], tiles: Sequence[Tile]) -> Tensor:
    """Images ``(C, *spatial)`` side by side in one of their size.

    Each is reduced by averaging over voxels, so that no voxel is skipped.
    """
    joined = torch.empty_like(images[0])
    for image, tile in zip(images, tiles, strict=True):
        target = joined[(slice(None), *tile)]
        target.copy_(functional.interpolate(image[None], size=target.shape[1:], mode="area")[0])
    return joined


def evidence_share(values: Tensor, tiles: Sequence[Tile]) -> float:
    """The share of the positive evidence of a map ``(C, *spatial)`` on some tiles, or NaN."""
    positive = values.double().sum(dim=0).clamp(min=0)
    total = float(positive.sum())
    return sum(float(positive[tile].sum()) for tile in tiles) / total if total else math.nan


def _drawn(images: Tensor, count: int, source: torch.Generator) -> list[Tensor]:
    """Some of the images, each once as long as there are enough; none of none."""
    order = torch.randperm(len(images), generator=source).tolist()
    return [images[number] for number in (order * count)[:count]]


def _references(context: MetricContext) -> tuple[Tensor, Tensor]:
    """The references that the network predicts as the class of the target, and the others.

    Raises:
        Undefined: If the target has no class, or there are too few images for a mosaic.
    """
    label, references = _label(context), context.input.references
    if references is None or not len(references):
        raise Undefined("a mosaic needs other images; pass some as references")
    predicted = context.cached(
        ("predicted as", label), partial(_predicted_as, label, context, references)
    )
    if not predicted[0]:
        raise Undefined(
            f"the image is not predicted as class {label}, and cannot represent it in a mosaic"
        )
    if all(predicted):
        raise Undefined(
            f"all references are predicted as class {label}; a mosaic needs some of other classes"
        )
    same_class = torch.tensor(predicted[1:], device=references.device)
    return references[same_class], references[~same_class]


def _label(context: MetricContext) -> int:
    """The class whose evidence is explained."""
    if context.bound.unperturbed.is_dense:
        raise Undefined("a mosaic needs images of one class each, and this output is dense")
    if context.bound.target.signed_for == "predicted":
        return context.predicted_class
    label = context.bound.field.label_of(context.input.row)
    if label is None:
        raise Undefined(
            "the target is not about a class, and a mosaic needs images of one class each"
        )
    return label


def _predicted_as(label: int, context: MetricContext, references: Tensor) -> list[bool]:
    """Whether the image, and each of its references, is predicted as a class."""
    model, bound = context.engine.model, context.bound
    predicted = []
    for image in (context.input.image, *references):
        with torch.inference_mode(), model.exact():
            output = model.output(image[None], context.engine.spacing)
        predicted.append(
            bool(predicted_mask(output, label, bound.activation, bound.target.threshold))
        )
    context.forwards += len(predicted)
    return predicted
