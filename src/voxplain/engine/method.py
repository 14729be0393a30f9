"""The declaration of an attribution method, what holds for its maps, and the registry."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from voxplain.declaration import Declaration
from voxplain.engine.baselines import Baseline
from voxplain.engine.context import Context
from voxplain.engine.identity import identity
from voxplain.engine.network_layers import Assembly
from voxplain.engine.randomness import NoisyCopies
from voxplain.engine.requests import Request, Stream
from voxplain.engine.stream_io import MethodOutput, StreamResults
from voxplain.engine.taps import INPUT
from voxplain.registry import Registry
from voxplain.targets import Target

ChannelReduction = Literal["keep", "sum", "sum_abs", "max_abs"]
MapGrid = Literal["image", "layer"]
Resampling = Literal["value", "mass"]
Sign = Literal["signed", "absolute", "positive"]


@dataclass(frozen=True)
class MapProperties:
    """What holds for every map of a method, whatever the network and the image.

    Attributes:
        sign: ``signed`` is evidence for and against, ``positive`` evidence for alone, ``absolute``
            strength without direction.
        units: Of the values.
        resampling: On another grid values are interpolated (``value``), or interpolated and scaled
            so that their sum stays (``mass``).
        complete: Whether the map keeps the sum of its streams, as S(x) - S(baseline). Whether a
            stream has such a sum is up to its reducer.
        exact_in_windows: Whether sliding windows give the map of the whole image, not one near it.
        grid: Whether the map lies on the grid of the image or on that of a layer.
        window_assembly: How layer maps of overlapping windows come together: values are blended as
            outputs are, gradients of the windows add up to the gradient of the whole.
        baseline: What the image is compared with; None where the method has no baseline.
        channel_names: Of the map, where its channels are not those of the image or the layer.
    """

    sign: Sign
    units: str
    resampling: Resampling
    complete: bool
    exact_in_windows: bool
    grid: MapGrid
    window_assembly: Assembly
    baseline: Baseline | None = None
    channel_names: tuple[str, ...] = ()


class Method(Declaration):
    """An attribution method; its fields are its parameters.

    A subclass declares what holds for its maps by class variables. Read them through
    :meth:`properties`, as parameters may change them.

    Attributes:
        formula: In the symbols of ``docs/methods.md``.
        units: Of the values.
        positive: Whether no value is negative.
        resampling: How the map comes to another grid.
        complete: Whether the map keeps the sum of its streams.
        exact_in_windows: Whether sliding windows give the map of the whole image.
        revision: Raised when equal parameters give other maps than before, so that a resumed run
            computes them again.
        grid: Where the map lies.
        window_assembly: How layer maps of overlapping windows come together.
        label: The key of the map in results and files; the name of the method if None.
        channels: What becomes of the channel axis: kept, summed, summed as absolute values, or
            the value of largest magnitude.
        absolute: Take absolute values at the end (``abs`` in studies).
    """

    family: ClassVar[str] = "gradient"
    formula: ClassVar[str] = ""
    units: ClassVar[str] = "score per unit of intensity"
    positive: ClassVar[bool] = False
    resampling: ClassVar[Resampling] = "mass"
    complete: ClassVar[bool] = True
    exact_in_windows: ClassVar[bool] = True
    revision: ClassVar[int] = 1
    grid: ClassVar[MapGrid] = "image"
    window_assembly: ClassVar[Assembly] = "sum"

    label: str | None = Field(default=None, description="key of the map; the name if absent")
    channels: ChannelReduction = "keep"
    absolute: bool = Field(default=False, alias="abs")

    @property
    def key(self) -> str:
        """The key of the map in results and files."""
        return self.label or self.name

    @property
    def residual_limit(self) -> float:
        """The completeness residual from which on readers of a map are told."""
        return 0.05

    @abstractmethod
    def requests(self, context: Context) -> tuple[Request, ...]:
        """The streams this method reads, for a network and an image."""
        return ()

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """Maps of one image, or of one noisy copy, by layer path.

        Args:
            results: Of the requests, in their order.
            context: The network and the image.

        Returns:
            ``(C, *spatial)`` under the key None for a map on the image grid, ``(K, *cells)`` under
            the path of the layer for others.
        """
        return {None: results.streams[0][INPUT]}

    def each_layer(self, context: Context | None = None) -> tuple[Self, ...]:
        """This method, or one copy for each of several layers whose maps lie on the image.

        Args:
            context: Of a network, which ``all`` takes; without it such a method stays as it is.
        """
        return (self,)

    def noise(self) -> NoisyCopies | None:
        """The noisy copies of the image that maps are summed up over; None for the image alone."""
        return None

    def conclude(
        self, maps: dict[str | None, Tensor], image: Tensor, context: Context
    ) -> MethodOutput:
        """The final maps of one image, and findings for its sidecar.

        Args:
            maps: As :meth:`maps` returns them, summed up over noisy copies.
            image: ``(C, *spatial)`` without noise.
            context: The network and the image.
        """
        return MethodOutput(maps)

    def remarks(self, context: Context) -> tuple[str, ...]:
        """Warnings for readers of the maps that hold for this network and image."""
        return ()

    def finish(self, values: Tensor) -> Tensor:
        """The declared post-steps on a map ``(C, ...)``: channels, then absolute value."""
        if self.channels == "sum":
            values = values.sum(dim=0, keepdim=True)
        elif self.channels == "sum_abs":
            values = values.abs().sum(dim=0, keepdim=True)
        elif self.channels == "max_abs":
            values = torch.take_along_dim(values, values.abs().argmax(dim=0, keepdim=True), dim=0)
        return values.abs() if self.absolute else values

    def properties(self) -> MapProperties:
        """What holds for the maps of this method with these parameters.

        A parameter named ``baseline`` is the baseline of the method.
        """
        absolute = self.absolute or self.channels == "sum_abs"
        return MapProperties(
            sign="absolute" if absolute else "positive" if self.positive else "signed",
            units=self.units,
            resampling=self.resampling,
            complete=self.complete,
            exact_in_windows=self.exact_in_windows,
            grid=self.grid,
            window_assembly=self.window_assembly,
            baseline=dict(self).get("baseline"),
        )


methods: Registry[Method] = Registry("method", "voxplain.methods")
"""All methods by name."""


def register(cls: type[Method]) -> type[Method]:
    """Adds a method class to the registry under its name."""
    return methods.add(cls.title(), cls)


parse_method = methods.parse
"""A method from a name, a mapping with ``name`` and parameters, or a method."""


def streams_of(
    methods: Sequence[Method], context: Context, target: Target
) -> list[Stream[Request]]:
    """The distinct streams of some methods, in the order in which they first appear.

    Args:
        methods: With distinct keys.
        context: The network and the images.
        target: What is explained where a request names no target of its own.
    """
    streams: dict[object, Stream[Request]] = {}
    for method in methods:
        noise, key = method.noise(), method.key
        for index, request in enumerate(method.requests(context)):
            explained = request.target or target
            value = identity((request.key, explained, noise.sampler if noise else None))
            if value not in streams:
                streams[value] = Stream(request, explained, noise, request.expected(context))
            streams[value].add(request, key, index)
    return list(streams.values())
