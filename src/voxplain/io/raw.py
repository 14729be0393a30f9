"""The result of a reader of one file format: channels, grid and facts without identity."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from voxplain.errors import InputError
from voxplain.image import Grid
from voxplain.objects import PlacedArray


@dataclass(frozen=True, eq=False)
class RawImage:
    """The content of one file or series.

    Attributes:
        data: ``(C, *spatial)`` in the type of the file, so that labels stay the integers they are.
        grid: The place of the voxels.
        source: Format, modality, unit and window, from an allow-list without identity.
        channels: Channel names that the format defines, such as red, green, blue.
    """

    data: NDArray[Any]
    grid: Grid
    source: dict[str, Any] = field(default_factory=dict)
    channels: tuple[str, ...] = ()

    @classmethod
    def of(cls, placed: PlacedArray, name: str) -> RawImage:
        """The content of a file that knows its place, by the name of its format."""
        if placed.affine is None:
            raise InputError("it states no place of its voxels")
        grid = Grid(tuple(placed.data.shape[1:]), placed.affine, code=placed.code)
        return cls(placed.data, grid, {"format": name}, placed.channels)  # type: ignore[arg-type]
