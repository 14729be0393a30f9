"""Contrasts: the score of one target minus that of another."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny, ValidationError

from voxplain.errors import ConfigError, TargetError
from voxplain.targets.base import Target, UnperturbedOutput
from voxplain.targets.field import WeightField
from voxplain.targets.regions import ErrorRegion, Pixelwise, Region, Threshold
from voxplain.targets.scores import ClassScore, Label, Unit, Volume


class Against(Target):
    """The target of the call against another one; it stands for itself until that is known.

    Attributes:
        other: What speaks against.
    """

    kind: Literal["against"] = "against"
    other: SerializeAsAny[Target]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of the other side."""
        return self.other.layers

    def _field(self, seen: UnperturbedOutput) -> WeightField:
        raise TargetError("a target against another needs the target of the call")


def facing(asked: Target, main: Target) -> Target:
    """What is explained where a method asks for a target: a contrast with that of the call.

    Raises:
        ConfigError: If the target of the call is a contrast already.
    """
    if not isinstance(asked, Against):
        return asked
    try:
        return Contrast(a=main, b=asked.other)
    except ValidationError:
        raise ConfigError(
            f"contrast_map sets one target against another, and one of {main} and {asked.other} is "
            "a contrast already"
        ) from None


Single = Annotated[
    Label | ClassScore | Pixelwise | Threshold | Region | ErrorRegion | Volume | Unit,
    Field(discriminator="kind"),
]


class Contrast(Target):
    """One target against another: S_a - S_b, explained in one pass.

    Attributes:
        a: What speaks for.
        b: What speaks against.
    """

    kind: Literal["contrast"] = "contrast"
    a: Single
    b: Single

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of both sides."""
        return self.a.layers + self.b.layers

    def _field(self, seen: UnperturbedOutput) -> WeightField:
        first, second = self.a.rebind(seen), self.b.rebind(seen)
        pairs = zip(first.in_words, second.in_words, strict=True)
        return first.minus(second, tuple(f"{one}, against {other}" for one, other in pairs))

    def _check_not_empty(self, bound: WeightField, seen: UnperturbedOutput) -> None:
        """Both sides must be there, and must not be the same."""
        for side in (self.a, self.b):
            side._check_not_empty(side.rebind(seen), seen)
        super()._check_not_empty(bound, seen)
