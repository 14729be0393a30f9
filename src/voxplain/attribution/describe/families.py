"""Families of methods, in the order in which the documentation lists them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """A family of methods.

    Attributes:
        name: As methods declare it.
        title: The heading of its methods.
        idea: What the methods have in common, in one sentence.
    """

    name: str
    title: str
    idea: str


FAMILIES = (
    Family(
        "gradient",
        "Gradients",
        "Derivatives of the score, at the image or along a path to it.",
    ),
    Family(
        "rule",
        "Backward rules",
        "Backward passes in which nonlinear functions have rules of their own.",
    ),
    Family(
        "layer",
        "Layers",
        "Contributions of the units of a layer; the map lies on the grid of the layer.",
    ),
    Family(
        "cam",
        "Class activation maps",
        "A weighted sum of the channels of a layer, interpolated to the image.",
    ),
    Family(
        "perturbation",
        "Perturbation",
        "Drops of the score when parts of the image, or of a layer, are removed.",
    ),
    Family(
        "surrogate",
        "Surrogates and games",
        "The value of each region, from the scores of many coalitions of regions.",
    ),
    Family(
        "region",
        "Regions",
        "A map of another method, averaged region by region.",
    ),
    Family(
        "optimization",
        "Optimization",
        "Masks that are optimized to keep, or to lower, the score.",
    ),
    Family(
        "wrapper",
        "Around other methods",
        "Any other method, over noisy copies of the image, or for one target against another.",
    ),
)
"""The families of this package, in order."""


def family(name: str) -> Family:
    """The family of that name; of a plug-in, with a heading made of the name."""
    by_name = {family.name: family for family in FAMILIES}
    return by_name.get(name, Family(name, name[:1].upper() + name[1:].replace("_", " "), ""))


def in_order(names: Iterable[str]) -> list[Family]:
    """The families of these names, those of this package first."""
    present = set(names)
    order = [family.name for family in FAMILIES]
    own = [name for name in order if name in present]
    return [family(name) for name in (*own, *sorted(present - set(order)))]
