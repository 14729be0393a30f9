"""What methods have in common that look at scores under masks, never at gradients."""

from __future__ import annotations

from typing import ClassVar

from voxplain.engine.masks import AnyFill, Mean
from voxplain.engine.method import Method, Resampling


class MaskMethod(Method):
    """A method of the masked stream: any network will do, also one without gradients.

    Attributes:
        units: A score, unless a method says otherwise.
    """

    family: ClassVar[str] = "perturbation"
    resampling: ClassVar[Resampling] = "value"  # a region keeps its value on any grid
    units: ClassVar[str] = "score"


class CoalitionMethod(MaskMethod):
    """A method that asks for the scores of many coalitions of regions.

    Attributes:
        fill: What the regions become that are not in the coalition.
    """

    family: ClassVar[str] = "surrogate"

    fill: AnyFill = Mean()
