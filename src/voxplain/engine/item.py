"""The image, or noisy copy of it, that a stream runs on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from voxplain.errors import ConfigError


@dataclass(frozen=True, eq=False)
class StreamInput:
    """One image under one draw of noise, as the streams see it.

    Attributes:
        image: ``(C, *spatial)``.
        row: Index of the image in the batch, which selects its weight field.
        key: What its random draws depend on, beside the sample number.
        references: ``(K, C, *spatial)`` without the image itself, or None.
        source: The image without the noise of this draw, where it has some.
        spacing: Millimeters per voxel; None where unknown.
    """

    image: Tensor
    row: int
    key: str
    references: Tensor | None = None
    source: Tensor | None = None
    spacing: tuple[float, ...] | None = None

    @property
    def clean(self) -> Tensor:
        """The image without noise."""
        return self.image if self.source is None else self.source


def require_references(item: StreamInput) -> Tensor:
    """The references of an image.

    Raises:
        ConfigError: If there are fewer than two.
    """
    if item.references is None or len(item.references) < 2:
        have = 0 if item.references is None else len(item.references)
        raise ConfigError(
            f"this method compares with other images and {have} are given; pass at least 2 as "
            "references (the image itself does not count)"
        )
    return item.references
