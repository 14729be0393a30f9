"""Bases of methods: one backward pass, layers, masks, and methods around another method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Self, cast

from pydantic import Field, SerializeAsAny, field_validator, model_validator
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.gradients.reducers import MeanGradient, Reducer
from voxplain.engine.gradients.samplers import Original
from voxplain.engine.masks import AnyFill, Mean
from voxplain.engine.method import MapGrid, MapProperties, Method, Resampling, parse_method
from voxplain.engine.randomness import NoisyCopies
from voxplain.engine.requests import GradientRequest, Request
from voxplain.engine.rules import Plain, Rule
from voxplain.engine.stream_io import StreamResults
from voxplain.engine.taps import Side, Tap
from voxplain.errors import ConfigError, VoxplainError

_ALL = ("all",)


class OnePassMethod(Method):
    """A method of one backward pass at the image itself.

    Attributes:
        reducer: What is kept of the pass.
    """

    reducer: ClassVar[type[Reducer]] = MeanGradient

    def requests(self, context: Context) -> tuple[Request, ...]:
        return (GradientRequest(Original(), self.reducer, self.rule()),)

    def rule(self) -> Rule:
        """The backward rule."""
        return Plain()


class AtLayers(Method):
    """The form of a gradient method whose maps lie on layers, one map per layer.

    Put it before a method of the image, as in ``class LayerSaliency(AtLayers, Saliency)``: the
    streams stay those of the method, and gradients are read at the layers.

    Attributes:
        layers: Paths as in ``get_submodule``; none is the last feature layer, ``all`` every leaf.
            A layer that returns several tensors has a map for each, ``path[0]``, ``path[1]``.
        side: The output or the input of each layer.
    """

    family = "layer"
    grid: ClassVar[MapGrid] = "layer"

    layers: tuple[str, ...] | str = Field(
        default=(), description="paths; absent: the last feature layer"
    )
    side: Side = "output"

    @field_validator("layers")
    @classmethod
    def _always_several(cls, value: tuple[str, ...] | str) -> tuple[str, ...]:
        return (value,) if isinstance(value, str) else value

    def taps(self, context: Context) -> tuple[Tap, ...]:
        """The layers, or the last feature layer."""
        return context.layers.taps(tuple(self.layers), self.side, each_tensor=True)

    def requests(self, context: Context) -> tuple[Request, ...]:
        """Those of the method, read at the layers."""
        taps = self.taps(context)
        requests = cast("tuple[GradientRequest, ...]", super().requests(context))
        return tuple(replace(request, places=taps) for request in requests)

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """One map per layer."""
        return {tap.path: values for tap, values in results[0].items()}


class FromLayer(Method):
    """A method that reads one layer and has its map on the image.

    Attributes:
        layer: Path of the layer; the last feature layer if None.
        layers: Paths of several layers; each has a map of its own, ``key@path``. ``all`` is every
            leaf whose cells have a place in the image.
    """

    layer: str | None = Field(default=None, description="path; absent: the last feature layer")
    layers: tuple[str, ...] = Field(
        default=(), description="paths, or all, instead of one: a map for each"
    )

    @field_validator("layers", mode="before")
    @classmethod
    def _always_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_or_several(self) -> Self:
        if self.layer is not None and self.layers:
            raise ValueError("give layer (one) or layers (a list of them), not both")
        if len(set(self.layers)) < len(self.layers):
            raise ValueError("layers: each layer has one map, and one of them is there twice")
        return self

    def each_layer(self, context: Context | None = None) -> tuple[Self, ...]:
        """One method for each layer of ``layers``."""
        layers = self.layers
        if layers == _ALL and context is not None:
            layers = context.layers.placed_leaves
        if not layers or layers == _ALL:
            return (self,)
        several = len(layers) > 1
        return tuple(
            self.model_copy(
                update={
                    "layer": path,
                    "layers": (),
                    "label": f"{self.key}@{path}" if several else self.label,
                }
            )
            for path in layers
        )

    def tap(self, context: Context, side: Side = "output") -> Tap:
        """The layer, or the last feature layer.

        Raises:
            ConfigError: If there are several layers, where one method has one map.
        """
        if len(self.layers) > 1 or self.layers == _ALL:
            count = "all" if self.layers == _ALL else len(self.layers)
            raise ConfigError(
                f"{self.key} has {count} layers, and one map is needed here; give layer"
            )
        path = self.layer or next(iter(self.layers), None)
        (tap,) = context.layers.taps((path,) if path else (), side)
        return tap


class MaskMethod(Method):
    """A method of scores under masks: any network will do, also one without gradients."""

    family = "perturbation"
    resampling: ClassVar[Resampling] = "value"  # a region keeps its value on any grid
    units = "score"


class CoalitionMethod(MaskMethod):
    """A method of the scores of coalitions of regions.

    Attributes:
        fill: What the regions become that are not in the coalition.
    """

    family = "surrogate"

    fill: AnyFill = Mean()


class Wrapper(Method):
    """A method around another one, which it is like in everything that a subclass leaves as is.

    Attributes:
        of: The inner method.
    """

    family = "wrapper"
    revision = 2

    of: SerializeAsAny[Method] = Field(description="the inner method: name or mapping")

    @field_validator("of", mode="before")
    @classmethod
    def _method(cls, value: Any) -> Method:
        return inner_method(value)

    @property
    def key(self) -> str:
        """The label, or both names."""
        return self.label or f"{self.name}_{self.of.key}"

    @property
    def residual_limit(self) -> float:
        """That of the inner method."""
        return self.of.residual_limit

    def each_layer(self, context: Context | None = None) -> tuple[Self, ...]:
        """The wrapper around the inner method at each layer."""
        inner = self.of.each_layer(context)
        if inner == (self.of,):
            return (self,)
        return tuple(
            self.model_copy(update={"of": each, "label": self._label_at(each, len(inner))})
            for each in inner
        )

    def _label_at(self, inner: Method, count: int) -> str | None:
        if self.label is None or count == 1:
            return self.label
        return f"{self.label}@{inner.key.rpartition('@')[2]}"

    def requests(self, context: Context) -> tuple[Request, ...]:
        return self.of.requests(context)

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        return self.of.maps(results, context)

    def noise(self) -> NoisyCopies | None:
        return self.of.noise()

    def remarks(self, context: Context) -> tuple[str, ...]:
        return self.of.remarks(context)

    def properties(self) -> MapProperties:
        """Those of the inner method, and the sign that is declared here, if any."""
        inner, sign = self.of.properties(), super().properties().sign
        return replace(inner, sign=inner.sign if sign == "signed" else sign)


def inner_method(value: Any) -> Method:
    """A method from a name or a mapping.

    Raises:
        ValueError: As pydantic expects it of a validator, if there is no such method.
    """
    try:
        return parse_method(value)
    except VoxplainError as error:
        raise ValueError(str(error)) from None
