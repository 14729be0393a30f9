"""The nodes and edges between which links are measured: units with names, classes, routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from voxplain.concepts.concept import Concept
from voxplain.concepts.directions.directions import Directions
from voxplain.engine.acceleration.forward_trace import trace
from voxplain.engine.context import Context
from voxplain.engine.interventions import UnitSet
from voxplain.engine.taps import INPUT, Tap
from voxplain.errors import ConfigError, ModelError

OUTPUT = "output"
"""What stands for the output where layers are named: in pairs of layers, and in graphs."""


@dataclass(frozen=True, eq=False)
class ConceptUnits:
    """Units of one layer that stand for a concept.

    Attributes:
        name: Of the concept, unique among the nodes.
        tap: The layer.
        units: Channels of it, or directions in the space of its channels.
        score: How well they detect the concept on held-out cases, such as an IoU; None if unknown.
        score_name: What the score is.
    """

    name: str
    tap: Tap
    units: UnitSet
    score: float | None = None
    score_name: str = "IoU"

    @property
    def size(self) -> int:
        """Number of channels, or of directions."""
        directions = self.units.directions
        return len(self.units.channels) if directions is None else len(directions)

    @property
    def label(self) -> str:
        """The name, followed by the score."""
        score = "" if self.score is None else f" ({self.score_name} {self.score:.2f})"
        return f"{self.name}{score}"


@dataclass(frozen=True)
class ClassOutput:
    """A class of the output, measured by its mean logit over a region and by its Dice.

    The region is where the reference shows the class, or, without a reference, where the network
    predicts it on the unchanged image. Dice is against the same mask.

    Attributes:
        name: Of the class, unique among the nodes.
        labels: Output channels that make up the class; the logit of several is their log-sum-exp.
        values: Labels of the reference that make up the class; equal to ``labels`` if empty.
        within: A concept to whose mask both are restricted; the whole image if None.
    """

    name: str
    labels: tuple[int, ...]
    values: tuple[int, ...] = ()
    within: Concept | None = None

    def reference(self, labels: Tensor) -> Tensor:
        """Where a label map shows the class, bool."""
        values = torch.as_tensor(self.values or self.labels, device=labels.device)
        return torch.isin(labels.round().to(values.dtype), values)


@dataclass(frozen=True)
class Edge:
    """A way from one layer to a later one along which effects are measured.

    Attributes:
        source: The layer whose units are replaced.
        target: The layer where the effect is measured; None for the output.
        through: The place where replaced values enter, such as the input of the layer that reads
            them on this route; all that read the source if None.
        hold: Layers that keep what they are on the unchanged image: the other routes.
    """

    source: Tap
    target: Tap | None
    through: Tap | None = None
    hold: tuple[Tap, ...] = ()

    @property
    def entry(self) -> Tap:
        """Where replaced values enter."""
        return self.through or self.source

    @property
    def is_route(self) -> bool:
        """Whether this is one of several ways between the two layers."""
        return self.through is not None or bool(self.hold)

    @property
    def route(self) -> str:
        """The route in words, such as ``around enc2, bottleneck``; empty for all routes."""
        around = f"around {', '.join(map(place_name, self.hold))}" if self.hold else ""
        through = f"through {place_name(self.through)}" if self.through else ""
        return " ".join(part for part in (through, around) if part)


def place_name(tap: Tap) -> str:
    """A place in words: the path of a layer, or ``input of`` it."""
    return f"input of {tap.path}" if tap.side == "input" else tap.path


def input_nodes(channels: Sequence[str]) -> tuple[ConceptUnits, ...]:
    """A node for each channel of the image, such as a modality."""
    return tuple(ConceptUnits(name, INPUT, UnitSet((k,))) for k, name in enumerate(channels))


def direction_nodes(
    directions: Directions, scores: Mapping[str, float] | None = None
) -> tuple[ConceptUnits, ...]:
    """A node for each direction that was found in a layer, to be linked like channels.

    Args:
        directions: Of one layer.
        scores: Held-out score of some of them by name, such as the IoU with their concept.
    """
    known = scores or {}
    return tuple(
        ConceptUnits(
            f"{name}, {directions.layer}",
            Tap(directions.layer),
            directions.units(number),
            known.get(name),
        )
        for number, name in enumerate(directions.names)
    )


def consecutive(
    nodes: Sequence[ConceptUnits], outputs: Sequence[ClassOutput], context: Context
) -> tuple[Edge, ...]:
    """Edges between analyzed layers that follow each other, and from the last one to the output."""
    ordered = in_order([node.tap for node in nodes], context)
    edges = [Edge(source, target) for source, target in pairwise(ordered)]
    last = [Edge(ordered[-1], None)] if outputs and ordered else []
    return (*edges, *last)


def in_order(taps: Sequence[Tap], context: Context) -> tuple[Tap, ...]:
    """Layers in the order in which the network computes them, each once.

    Raises:
        ModelError: With the nearest names, if a layer does not exist or does not run.
    """
    context.layers.locate(taps)
    spans = trace(context.model, context.example).spans

    def time(tap: Tap) -> int:
        if tap.module not in spans:
            raise ModelError(f"layer {tap.path!r} takes no part in the output for this image")
        span = spans[tap.module]
        return span.begin if tap.side == "input" else span.end

    return tuple(sorted(dict.fromkeys(taps), key=time))


def check_nodes(nodes: Sequence[ConceptUnits], outputs: Sequence[ClassOutput] = ()) -> None:
    """Refuses nodes without units or with equal names.

    Raises:
        ConfigError: Naming the node.
    """
    names = [*(node.name for node in nodes), *(output.name for output in outputs)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two nodes are called {name!r}; each needs a name of its own")
    for node in nodes:
        if node.size == 0:
            raise ConfigError(f"node {node.name!r} of layer {node.tap.path!r} has no units")


def check_channels(node: ConceptUnits, channels: int) -> None:
    """Refuses units that a layer does not have.

    Raises:
        ConfigError: Naming the node, the layer and its channels.
    """
    directions = node.units.directions
    if directions is not None and directions.shape[1] != channels:
        raise ConfigError(
            f"node {node.name!r}: directions of {directions.shape[1]} channels for layer "
            f"{node.tap.path!r}, which has {channels}"
        )
    given = node.units.channels
    if len({*given}) < len(given):
        raise ConfigError(f"node {node.name!r} names a channel twice")
    wrong = [channel for channel in given if not 0 <= channel < channels]
    if wrong:
        raise ConfigError(
            f"node {node.name!r}: layer {node.tap.path!r} has channels 0 to {channels - 1}, "
            f"not {wrong[0]}"
        )
