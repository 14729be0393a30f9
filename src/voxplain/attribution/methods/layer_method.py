"""What methods have in common whose maps live on layers."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.method import Method
from voxplain.engine.network_layers import Assembly
from voxplain.engine.stream_io import StreamResults
from voxplain.engine.taps import Tap


class LayerMethod(Method):
    """A method whose maps live on layers.

    Attributes:
        layers: Paths as in ``get_submodule``; none is the last feature layer, ``all`` every leaf.
        side: What enters or what leaves a layer.
        windows: How the windows of a windowed network come together on the image.
    """

    windows: ClassVar[Assembly] = "sum"

    family: ClassVar[str] = "layer"
    units: ClassVar[str] = "score per unit of activation"

    layers: tuple[str, ...] | str = Field(
        default=(), description="paths; absent: the last feature layer"
    )
    side: Literal["output", "input"] = "output"

    @field_validator("layers")
    @classmethod
    def _always_several(cls, value: tuple[str, ...] | str) -> tuple[str, ...]:
        return (value,) if isinstance(value, str) else value

    def _taps(self, context: Context) -> tuple[Tap, ...]:
        return context.taps(tuple(self.layers), self.side)

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """One map per layer."""
        return {tap.path: map for tap, map in results[0].items()}
