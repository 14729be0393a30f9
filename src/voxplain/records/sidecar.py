"""The JSON beside every map: what it is, of what, made how. No patient, no path, no host."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_pascal


class _SidecarPart(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_pascal, populate_by_name=True
    )


class TargetFacts(_SidecarPart):
    """What was explained.

    ``score`` is S(x), ``baseline_score`` S(b) where the method has a baseline; ``field_size`` is
    the number of output positions with a weight; ``activation`` what makes probabilities of the
    output: ``softmax`` or ``sigmoid``, with ``_inside`` where the network ends in it.
    """

    kind: str
    in_words: str
    parameters: dict[str, Any]
    score: float
    baseline_score: float | None = None
    probability: float | None = None
    activation: str | None = None
    field_size: int | None = None


class ValueRange(_SidecarPart):
    """Quantiles of the written map; ``zeros`` is the share of voxels that are exactly 0."""

    q005: float
    q995: float
    minimum: float
    maximum: float
    sum: float
    zeros: float


class GridFacts(_SidecarPart):
    """Where the map lies and which preprocessing steps were inverted to get there."""

    shape: tuple[int, ...]
    affine: list[list[float]]
    spacing: tuple[float, ...]
    unit: Literal["mm", "pixel"]
    orientation: str
    inverted: list[str] = []


class LayerFacts(_SidecarPart):
    """A tapped layer: cell ``i`` lies at voxel ``start + stride * i`` of the network's input."""

    path: str
    channels: int | None = None
    shape: tuple[int, ...] = ()
    stride: tuple[float, ...] | None = None
    start: tuple[float, ...] | None = None
    call: int | None = None


class ModelFacts(_SidecarPart):
    """The network under study.

    In a sidecar, ``precision`` is that in which the passes for this map ran.
    """

    name: str
    weights_sha256: str
    parameters: int
    precision: str
    head: str | None = None
    window: dict[str, Any] | None = None


class Cost(_SidecarPart):
    """What the stream of this map cost; shared streams are counted once and marked."""

    passes: int
    seconds: float
    shared_with: list[str] = []
    peak_memory_mb: float | None = None


class Sidecar(_SidecarPart):
    """Everything a reader needs to know about one map.

    ``completeness`` is the residual |sum - (S(x) - S(b))| / |S(x) - S(b)| of a map of the image;
    ``flow`` the share of S(x) - S(b) that goes through the layer of a layer map; ``findings`` what
    else the method found: the fit of a surrogate, the value of every region; ``layer_read`` the
    path of the layer that a map of the image is made of, as for CAMs, also where it is the default.
    """

    schema_version: int = 1
    method: str
    label: str
    meaning: str
    formula: str = ""
    paper: str = ""
    parameters: dict[str, Any]
    stream: list[dict[str, Any]]
    target: TargetFacts
    channels: tuple[str, ...]
    units: str
    sign: Literal["signed", "absolute", "positive"]
    resampling: Literal["value", "mass"]
    baseline: dict[str, Any] | None = None
    completeness: float | None = None
    flow: float | None = None
    findings: dict[str, Any] = {}
    range: ValueRange
    grid: GridFacts
    layer: LayerFacts | None = None
    layer_read: str | None = None
    model: ModelFacts
    cost: Cost
    software: dict[str, str]
    warnings: list[str] = []

    def to_json(self) -> str:
        """The sidecar as indented JSON with the field names of the output page."""
        return self.model_dump_json(by_alias=True, indent=2, exclude_none=True)
