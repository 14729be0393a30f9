"""Method cards: cost and properties of a method, from its declaration on two reference images.

No pass is run, so that cards of plug-ins cost nothing either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from voxplain.engine.context import Context
from voxplain.engine.identity import identity
from voxplain.engine.method import Method, Resampling, Sign, parse_method, streams_of
from voxplain.engine.requests import Request, Stream
from voxplain.engine.stream_io import StreamInput, TooFewReferencesError
from voxplain.errors import VoxplainError
from voxplain.targets import Label

PICTURE, VOLUME = (224, 224), (96, 96, 96)
"""Shapes of the reference images, of one channel."""
CHANNELS = 64
"""Channels of the last feature layer of the reference network."""
_EXAMPLES: Mapping[str, Any] = {"of": "saliency", "layer_channels": (0,), "against": 0}
"""Values of parameters without a default."""


@dataclass(frozen=True)
class PassCost:
    """Number of passes for one image.

    Attributes:
        passes: Forward and backward.
        forwards: Forward only.
    """

    passes: int
    forwards: int


@dataclass(frozen=True)
class MethodCard:
    """Streams and cost of a method with its defaults, and what holds for its maps.

    Attributes:
        streams: In words, on the picture.
        costs: On the picture and on the volume; empty where the method needs another network.
        complete: Whether the map sums to S(x) - S(baseline), or to S(x) - S(nothing left).
        flows: Whether the map of a layer sums to the part of that which goes through the layer.
        forwards_only: Whether a network without gradients will do.
        exact_in_windows: Whether sliding windows give the map of the whole image.
        needs_references: Whether other images must be given.
        random: Whether the map depends on the seed.
        sign: Of the values: ``signed``, ``positive`` or ``absolute``.
        resampling: On another grid: ``value`` or ``mass``.
        reason: Why there is no cost.
    """

    streams: tuple[str, ...] = ()
    costs: tuple[PassCost, ...] = ()
    complete: bool = False
    flows: bool = False
    forwards_only: bool = False
    exact_in_windows: bool = True
    needs_references: bool = False
    random: bool = False
    sign: Sign = "signed"
    resampling: Resampling = "value"
    reason: str = ""

    @property
    def cost(self) -> str:
        """Passes on the picture and on the volume, once where they are the same."""
        passes = _counted([cost.passes for cost in self.costs], "pass", "passes")
        forwards = _counted([cost.forwards for cost in self.costs], "forward", "forwards")
        return " and ".join(filter(None, (passes, forwards))) or "depends on the network"

    @property
    def holds(self) -> tuple[str, ...]:
        """The properties of the maps, a sentence each."""
        if self.reason:
            return ()
        near = "equal to" if self.exact_in_windows else "near, and not equal to,"
        start = "nothing left" if self.forwards_only else "baseline"
        sentences = {
            f"Complete: contributions add up to S(x) - S({start}); the residual is stored": (
                self.complete
            ),
            "Adds up to the part of S(x) - S(baseline) that goes through the layer": self.flows,
            "Forwards only: works with networks without gradients (ONNX, TorchScript)": (
                self.forwards_only
            ),
            f"With sliding windows {near} the map of the whole image": True,
            "Needs other images as references": self.needs_references,
            "Random: depends on the seed": self.random,
        }
        return tuple(sentence for sentence, holds in sentences.items() if holds)


def method_card(kind: type[Method]) -> MethodCard:
    """The card of a method with its defaults; of a wrapper, around saliency."""
    examples = {name: value for name, value in _EXAMPLES.items() if _is_required(kind, name)}
    try:
        method = parse_method({"name": kind.title(), **examples})
        picture, volume = reference_context(PICTURE), reference_context(VOLUME)
        requests = method.requests(picture)
        streams = [streams_of([method], context, Label(label=0)) for context in (picture, volume)]
    except VoxplainError as error:
        return MethodCard(reason=str(error))
    properties = method.properties()
    sums = properties.complete and any(request.complete for request in requests)
    return MethodCard(
        streams=tuple(stream.describe() for stream in streams[0]),
        costs=tuple(_cost(on_image) for on_image in streams),
        complete=sums and properties.grid == "image",
        flows=sums and properties.grid == "layer",
        forwards_only=all(request.forwards_only for request in requests),
        exact_in_windows=properties.exact_in_windows
        and all(request.exact_in_windows for request in requests),
        needs_references=any(_needs_references(stream, picture) for stream in streams[0]),
        random=method.noise() is not None
        or any(_is_random(request, picture) for request in requests),
        sign=properties.sign,
        resampling=properties.resampling,
    )


@lru_cache(maxsize=2)
def reference_context(shape: tuple[int, ...]) -> Context:
    """A small network of large strides and an image of this shape, for quick declarations."""
    rank = len(shape)
    convolution = {2: nn.Conv2d, 3: nn.Conv3d}[rank]
    pool = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[rank]
    network = nn.Sequential(
        convolution(1, 8, 4, stride=4),
        nn.ReLU(),
        convolution(8, CHANNELS, 4, stride=4),
        nn.ReLU(),
        pool(1),
        nn.Flatten(),
        nn.Linear(CHANNELS, 2),
    )
    grid = torch.meshgrid(*(torch.linspace(0, 3, side) for side in shape), indexing="ij")
    return Context.open(network.eval(), torch.stack(grid).sin().sum(dim=0)[None, None])


def _counted(counts: Sequence[int], singular: str, plural: str) -> str:
    """``121 / 1,331 forwards``; empty where all counts are 0."""
    if not any(counts):
        return ""
    numbers = " / ".join(dict.fromkeys(f"{count:,}" for count in counts))
    return f"{numbers} {singular if numbers == '1' else plural}"


def _cost(streams: Sequence[Stream[Request]]) -> PassCost:
    forwards = sum(stream.passes() for stream in streams if stream.request.forwards_only)
    return PassCost(sum(stream.passes() for stream in streams) - forwards, forwards)


def _is_required(kind: type[Method], name: str) -> bool:
    return name in kind.model_fields and kind.model_fields[name].is_required()


def needs_references(method: Method, context: Context) -> bool:
    """Whether a method cannot explain an image without references."""
    streams = streams_of([method], context, Label(label=0))
    return any(_needs_references(stream, context) for stream in streams)


def _needs_references(stream: Stream[Request], context: Context) -> bool:
    """Whether an image without references has no passes, or its first point cannot be drawn."""
    if stream.passes(0) == 0:
        return True
    if stream.request.forwards_only:
        return False
    try:
        stream.request.sample(StreamInput(torch.zeros(1, 4, 4), 0, "none"), context)
    except TooFewReferencesError:
        return True
    except Exception:  # the example is too small for what this stream draws
        return False
    return False


def _is_random(request: Request, context: Context) -> bool:
    """Whether another key gives other points or masks."""
    image = context.example[0]
    references = torch.stack([image * 0, image / 2, image * 2])
    items = [StreamInput(image, 0, key, references) for key in ("a", "b")]
    first, second = (identity(request.sample(item, context)) for item in items)
    return first != second
