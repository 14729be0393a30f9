"""What a method is: a frozen declaration of streams and of how their results become maps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.declaration import Declaration, parsed
from voxplain.engine.context import Context
from voxplain.engine.identity import identity
from voxplain.engine.randomness import NoisyCopies
from voxplain.engine.requests import Request, Stream
from voxplain.engine.stream_io import MethodOutput, StreamResults
from voxplain.engine.taps import INPUT
from voxplain.registry import Registry
from voxplain.targets import Target

Resampling = Literal["value", "mass"]


class Method(Declaration):
    """An attribution method; its fields are its parameters.

    Attributes:
        label: The key of the map in results and files; the name of the method if None.
        channels: What becomes of the channel axis: kept, summed, summed as absolute values, or
            the value of largest magnitude.
        absolute: Take absolute values at the end (``abs`` in studies).
    """

    family: ClassVar[str] = "gradient"  # a name of `families`, where the methods are listed
    formula: ClassVar[str] = ""
    resampling: ClassVar[Resampling] = "mass"
    positive: ClassVar[bool] = False
    units: ClassVar[str] = "score per unit of intensity"
    complete: ClassVar[bool] = True  # whether the map still sums to what its streams sum to
    exact_in_windows: ClassVar[bool] = True  # False where windows only come near the whole

    label: str | None = Field(default=None, description="key of the map; the name if absent")
    channels: Literal["keep", "sum", "sum_abs", "max_abs"] = "keep"
    absolute: bool = Field(default=False, alias="abs")

    @abstractmethod
    def requests(self, context: Context) -> tuple[Request, ...]:
        """The streams this method reads, for a network and an image."""

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """Maps by layer path; None is the key of a map on the image grid."""
        return {None: results.streams[0][INPUT]}

    def noise(self) -> NoisyCopies | None:
        """Noisy copies to sum up over, for SmoothGrad and its kin."""
        return None

    def conclude(
        self, maps: dict[str | None, Tensor], image: Tensor, context: Context
    ) -> MethodOutput:
        """What becomes of the maps of one image ``(C, *spatial)`` once all its copies are in."""
        return MethodOutput(maps)

    @property
    def key(self) -> str:
        """What the map is called."""
        return self.label or self.name

    @property
    def baseline_of(self) -> Any:
        """The baseline of the method, None where it has none."""
        return getattr(self, "baseline", None)

    @property
    def map_channels(self) -> tuple[str, ...]:
        """What the channels of the map are, where they are not those of the image."""
        return ()

    def finish(self, map: Tensor) -> Tensor:
        """The declared post-steps on ``(C, *spatial)``: channels, then absolute value."""
        if self.channels == "sum":
            map = map.sum(dim=0, keepdim=True)
        elif self.channels == "sum_abs":
            map = map.abs().sum(dim=0, keepdim=True)
        elif self.channels == "max_abs":
            map = torch.take_along_dim(map, map.abs().argmax(dim=0, keepdim=True), dim=0)
        return map.abs() if self.absolute else map

    @property
    def sign(self) -> Literal["signed", "absolute", "positive"]:
        """What the sign of the map means."""
        if self.absolute or self.channels == "sum_abs":
            return "absolute"
        return "positive" if self.positive else "signed"


methods: Registry[Method] = Registry("method", "voxplain.methods")
"""Every method by its name."""


def register(cls: type[Method]) -> type[Method]:
    """Adds a method class to the registry under its name."""
    return methods.add(cls.title(), cls)


def parse_method(spec: str | Mapping[str, Any] | Method, where: str = "") -> Method:
    """A method from what people write.

    Args:
        spec: A name, a mapping with ``name`` and parameters, or a method.
        where: Path of the entry in a study, for errors.

    Raises:
        ConfigError: With the nearest names or the exact path of the parameter.
    """
    return spec if isinstance(spec, Method) else parsed(methods, spec, where)


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
