"""The result of a reader of one file format: channels, grid and facts without identity."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.image import Grid


@dataclass(frozen=True, eq=False)
class RawImage:
    """The content of one file or series.

    Attributes:
        data: ``(C, *spatial)``, float32.
        grid: The place of the voxels.
        source: Format, modality, unit and window, from an allow-list without identity.
        channels: Channel names that the format defines, such as red, green, blue.
    """

    data: NDArray[np.float32]
    grid: Grid
    source: dict[str, Any] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
