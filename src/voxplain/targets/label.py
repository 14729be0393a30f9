"""The target a bare class number stands for."""

from __future__ import annotations

from typing import Literal

from voxplain.targets.base import Target, UnperturbedOutput
from voxplain.targets.field import WeightField
from voxplain.targets.regions import Pixelwise
from voxplain.targets.scores import ClassScore


class Label(Target):
    """A class by its number: its score for ``(B, K)`` outputs, pixel-wise for dense ones."""

    kind: Literal["label"] = "label"
    label: int

    def _field(self, seen: UnperturbedOutput) -> WeightField:
        return self._meant(seen).rebind(seen)

    def why_empty(self, seen: UnperturbedOutput, row: int) -> str:
        """As the target it stands for says."""
        return self._meant(seen).why_empty(seen, row)

    def _meant(self, seen: UnperturbedOutput) -> Target:
        chosen: type[Pixelwise] | type[ClassScore] = Pixelwise if seen.is_dense else ClassScore
        return chosen(label=self.label, activation=self.activation, threshold=self.threshold)

    @property
    def slug(self) -> str:
        """The label."""
        return str(self.label)
