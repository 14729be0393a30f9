"""Contrasts: the score of one target minus that of another."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny, ValidationError

from voxplain.errors import ConfigError, TargetError
from voxplain.targets.base import Target, UnperturbedOutput
from voxplain.targets.field import WeightField
from voxplain.targets.images import Intensity, ReconstructionError
from voxplain.targets.regions import ErrorRegion, Pixelwise, Region, Threshold
from voxplain.targets.scores import ClassScore, Label, Unit, Volume


class Against(Target):
    """A placeholder for the contrast between the target of a call and another target.

    Attributes:
        other: The target whose score is subtracted.
    """

    kind: Literal["against"] = "against"
    other: SerializeAsAny[Target]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of the other target."""
        return self.other.layers

    def _field(self, unperturbed: UnperturbedOutput) -> WeightField:
        raise TargetError("a target against another needs the target of the call")


def resolve_target(target: Target, main: Target) -> Target:
    """The target of a method, with a placeholder replaced by the contrast.

    Args:
        target: As the method declares it.
        main: The target of the call.

    Raises:
        ConfigError: If one side of the contrast is a contrast already.
    """
    if not isinstance(target, Against):
        return target
    try:
        return Contrast(a=main, b=target.other)
    except ValidationError:
        raise ConfigError(
            f"contrast_map sets one target against another, and one of {main} and {target.other} "
            "is a contrast already"
        ) from None


OneTarget = (
    Label
    | ClassScore
    | Pixelwise
    | Threshold
    | Region
    | ErrorRegion
    | Volume
    | Unit
    | Intensity
    | ReconstructionError
)
"""Every target but a contrast of two."""
Single = Annotated[OneTarget, Field(discriminator="kind")]


class Contrast(Target):
    """The difference of two targets, S_a - S_b, explained in one pass.

    Attributes:
        a: The first target.
        b: The target that is subtracted.
    """

    kind: Literal["contrast"] = "contrast"
    a: Single
    b: Single

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of both targets."""
        return self.a.layers + self.b.layers

    def _field(self, unperturbed: UnperturbedOutput) -> WeightField:
        first, second = self.a.rebind(unperturbed), self.b.rebind(unperturbed)
        pairs = zip(first.in_words, second.in_words, strict=True)
        return first.minus(second, tuple(f"{a}, against {b}" for a, b in pairs))

    def _check_not_empty(self, bound: WeightField, unperturbed: UnperturbedOutput) -> None:
        """Neither target may be empty, nor their difference."""
        for side in (self.a, self.b):
            side._check_not_empty(side.rebind(unperturbed), unperturbed)
        super()._check_not_empty(bound, unperturbed)
