"""Families: what kinds of methods there are, in the order in which a reader meets them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Methods of one kind.

    Attributes:
        name: As methods declare it.
        title: As a heading.
        idea: What they have in common, in one sentence.
    """

    name: str
    title: str
    idea: str


FAMILIES = (
    Family(
        "gradient",
        "Gradients",
        "How the score changes when voxels change a little, at the image or on a path to it.",
    ),
    Family(
        "rule",
        "Backward rules",
        "The score is handed back through the network by rules of its own, layer by layer.",
    ),
    Family(
        "layer",
        "Layers",
        "What the cells and channels of a layer contribute; the map lives on the layer's grid.",
    ),
    Family(
        "cam",
        "Class activation maps",
        "A weighted sum of the channels of a layer, brought to the image.",
    ),
    Family(
        "perturbation",
        "Perturbation",
        "What the score loses when parts of the image, or of a layer, are removed.",
    ),
    Family(
        "surrogate",
        "Surrogates and games",
        "Many coalitions of regions are scored, and what each region is worth is worked out.",
    ),
    Family(
        "region",
        "Regions",
        "A map of another method, told region by region.",
    ),
    Family(
        "optimization",
        "Optimization",
        "A mask is sought that keeps, or destroys, as much of the score as it can.",
    ),
    Family(
        "wrapper",
        "Around other methods",
        "Any other method: over noisy copies of the image, or for one target against another.",
    ),
)
"""The families of the package, in order."""


def family(name: str) -> Family:
    """The family of that name; a plug-in may bring one of its own."""
    known = {each.name: each for each in FAMILIES}
    return known.get(name, Family(name, name[:1].upper() + name[1:].replace("_", " "), ""))


def in_order(names: Iterable[str]) -> list[Family]:
    """The families that occur, those of the package first."""
    found = dict.fromkeys(names)
    order = [each.name for each in FAMILIES]
    known = [name for name in order if name in found]
    return [family(name) for name in (*known, *sorted(set(found) - set(order)))]
