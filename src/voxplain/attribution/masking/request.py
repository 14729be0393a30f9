"""What a method asks of the masked stream."""

from __future__ import annotations

from dataclasses import dataclass

from voxplain.attribution.masking.cones import Choice
from voxplain.attribution.masking.fills import Fill
from voxplain.attribution.masking.reducers import MaskReducer
from voxplain.attribution.masking.samplers import MaskSampler
from voxplain.targets import Target


@dataclass(frozen=True, eq=False)
class MaskRequest:
    """Masks, what removed voxels become, and what is kept of the scores.

    Attributes:
        masks: Which parts are removed.
        fill: What they become.
        reducer: Makes a map of the scores.
        target: What to explain instead of the target of the call.
        incremental: Whether only what a mask changes is computed; it never changes a score
            beyond rounding.
    """

    masks: MaskSampler
    fill: Fill
    reducer: MaskReducer
    target: Target | None = None
    incremental: Choice = "auto"
