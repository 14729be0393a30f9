"""What is synthesized, how, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from voxplain.synthesis.objectives.base import Objective
from voxplain.synthesis.parametrizations import Parametrization
from voxplain.synthesis.regularization import Regularization
from voxplain.synthesis.surface import Surface
from voxplain.synthesis.transforms import Transforms
from voxplain.synthesis.update_rules import AdamUpdate, UpdateRule


@dataclass(frozen=True, eq=False)
class SynthesisJob:
    """Images of one unit, which may look at each other for diversity and at nothing else.

    Attributes:
        objective: What they drive.
        keys: One per image, from which its random numbers are drawn.
        start: ``(B, C, *spatial)``, the images to start from; None for noise.
        unit: What scores are of, where the objective holds more than that.
    """

    objective: Objective
    keys: tuple[str, ...]
    start: Tensor | None = None
    unit: Objective | None = None

    @property
    def scored(self) -> Objective:
        """What scores are of."""
        return self.unit or self.objective


@dataclass(frozen=True, eq=False)
class Recipe:
    """How images are synthesized, whatever the unit.

    Attributes:
        surface: Where they lie.
        parametrization: What is optimized.
        transforms: Under which changes.
        regularization: With which penalties.
        update: How parameters move.
        steps: How often.
    """

    surface: Surface
    parametrization: Parametrization
    transforms: Transforms = field(default_factory=Transforms)
    regularization: Regularization = field(default_factory=Regularization)
    update: UpdateRule = field(default_factory=AdamUpdate)
    steps: int = 512


@dataclass(frozen=True, eq=False)
class Drive:
    """What came of one job.

    Attributes:
        images: ``(B, C, *spatial)``.
        first: The images at the start.
        history: The score in every step under its transforms, ``(steps, B)``.
        before: Objective minus penalties of the images at the start, without transforms, ``(B,)``.
        after: The same of the images.
        scores: The unit alone on the images, ``(B,)``.
        first_scores: The same at the start.
        peaks: The unit at its strongest place, ``(B,)``.
    """

    images: Tensor
    first: Tensor
    history: Tensor
    before: Tensor
    after: Tensor
    scores: Tensor
    first_scores: Tensor
    peaks: Tensor

    @property
    def is_dead(self) -> bool:
        """Whether the score never changed: there is nothing to follow."""
        return len(self.history) > 1 and bool((self.history == self.history[0]).all())
