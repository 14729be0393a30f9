"""What a method is: a frozen declaration of streams and of how their results become maps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.attribution.masking import MaskRequest
from voxplain.attribution.passes import INPUT
from voxplain.attribution.reducers import Reducer
from voxplain.attribution.rules import Plain, Rule
from voxplain.attribution.samplers import GaussianNoise, Item, Sampler
from voxplain.attribution.scene import Scene
from voxplain.attribution.taps import Tap
from voxplain.declaration import Declaration, parsed
from voxplain.registry import Registry
from voxplain.targets import Target


@dataclass(frozen=True, eq=False)
class Results:
    """What the streams brought back to one method for one image.

    Attributes:
        streams: Per request of the method, the reduced tensor at each place.
        item: The image (or noisy copy) they are about, with its key and references.
    """

    streams: tuple[Mapping[Tap, Tensor], ...]
    item: Item

    def __getitem__(self, request: int) -> Mapping[Tap, Tensor]:
        return self.streams[request]

    def __iter__(self) -> Iterator[Mapping[Tap, Tensor]]:
        return iter(self.streams)

    def part(self, requests: slice) -> Results:
        """What some of the requests brought, for a method made of others."""
        return replace(self, streams=self.streams[requests])


@dataclass(frozen=True, eq=False)
class Conclusion:
    """What a method makes of its maps of one image, once all noisy copies are summed up.

    Attributes:
        maps: By layer path; None is the key of a map on the image grid.
        findings: What else came out, for the sidecar.
    """

    maps: dict[str | None, Tensor]
    findings: dict[str, Any] = field(default_factory=dict)


Resampling = Literal["value", "mass"]


@dataclass(frozen=True, eq=False)
class Request:
    """One stream of a method, and what to keep of it.

    Attributes:
        sampler: The points.
        reducer: Makes the accumulator of one place.
        rule: How functions are differentiated.
        places: Where to look: the input, or tapped layers.
        target: What to explain instead of the target of the call (a unit, say).
        double: Run in float64 where the network has norms whose statistics of a constant
            baseline would cancel.
    """

    sampler: Sampler
    reducer: Callable[[], Reducer]
    rule: Rule = Plain()  # noqa: RUF009
    places: tuple[Tap, ...] = (INPUT,)
    target: Target | None = None
    double: bool = False


AnyRequest = Request | MaskRequest
"""What a method may ask for: a stream of gradients, or one of scores under masks."""


@dataclass(frozen=True)
class Noise:
    """Noisy copies over which the maps of a method are summed up."""

    sampler: GaussianNoise
    statistic: Literal["mean", "mean_square", "variance"]


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
    def requests(self, scene: Scene) -> tuple[AnyRequest, ...]:
        """The streams this method reads, for a network and an image."""

    def maps(self, results: Results, scene: Scene) -> dict[str | None, Tensor]:
        """Maps by layer path; None is the key of a map on the image grid."""
        return {None: results[0][INPUT]}

    def noise(self) -> Noise | None:
        """Noisy copies to sum up over, for SmoothGrad and its kin."""
        return None

    def conclude(self, maps: dict[str | None, Tensor], image: Tensor, scene: Scene) -> Conclusion:
        """What becomes of the maps of one image ``(C, *spatial)`` once all its copies are in."""
        return Conclusion(maps)

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
