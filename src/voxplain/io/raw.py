"""What a reader of one format hands on: channels, grid and the facts that may be shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.image import Grid


@dataclass(frozen=True, eq=False)
class Raw:
    """One file or series, before it becomes an image.

    Attributes:
        data: ``(C, *spatial)``, float32.
        grid: Where the voxels lie.
        source: Format, modality, unit, window: an allow-list, never identity.
        channels: Names that the format itself gives, such as red, green, blue.
    """

    data: NDArray[np.float32]
    grid: Grid
    source: dict[str, Any] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
