"""What a method is like, found out by declaring it on two reference images.

Nothing runs but what a declaration needs, so that a portrait holds for plug-ins too.
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
from voxplain.engine.method import Method, Resampling, parse_method, streams_of
from voxplain.engine.requests import Request, Stream
from voxplain.engine.stream_io import StreamInput
from voxplain.errors import VoxplainError
from voxplain.targets import Label

PICTURE, VOLUME = (224, 224), (96, 96, 96)
"""The reference images, of one channel."""
CHANNELS = 64
"""Of the last feature layer of the reference network."""
_NEEDED: Mapping[str, Any] = {"of": "saliency", "layer_channels": (0,), "against": 0}
"""For parameters without a default."""


@dataclass(frozen=True)
class PassCost:
    """Passes for one image.

    Attributes:
        passes: Forward and backward.
        forwards: Forward only.
    """

    passes: int
    forwards: int


@dataclass(frozen=True)
class MethodCard:
    """What a method with its defaults asks of a network, and what holds for its maps.

    Attributes:
        streams: In words, on the picture.
        costs: On the picture and on the volume; empty where the method needs another network.
        complete: Whether the map sums to S(x) - S(baseline), or to S(x) - S(nothing left).
        flows: Whether the map of a layer sums to the part of that which goes through the layer.
        forwards_only: Whether a network without gradients will do.
        exact_in_windows: Whether sliding windows give what the whole would.
        needs_references: Whether other images must be given.
        random: Whether the seed matters.
        sign: What the sign of the map means.
        resampling: What happens to the map on another grid.
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
    sign: str = "signed"
    resampling: Resampling = "value"
    reason: str = ""

    @property
    def cost(self) -> str:
        """Passes on the picture and on the volume, once where they are the same."""
        passes = _either([each.passes for each in self.costs], "pass", "passes")
        forwards = _either([each.forwards for each in self.costs], "forward", "forwards")
        return " and ".join(filter(None, (passes, forwards))) or "depends on the network"

    @property
    def holds(self) -> tuple[str, ...]:
        """What holds for the maps, sentence by sentence."""
        if self.reason:
            return ()
        near = "equal to" if self.exact_in_windows else "near, and not equal to,"
        start = "nothing left" if self.forwards_only else "baseline"
        said = {
            f"Complete: what it shares out is S(x) - S({start}), and the residual is stored": (
                self.complete
            ),
            "Sums to the part of S(x) - S(baseline) that goes through the layer": self.flows,
            "Forwards only: a network without gradients (ONNX, TorchScript) will do": (
                self.forwards_only
            ),
            f"In sliding windows {near} the map of the whole": True,
            "Needs other images as references": self.needs_references,
            "Draws at random, from the seed": self.random,
        }
        return tuple(words for words, is_so in said.items() if is_so)


def method_card(kind: type[Method]) -> MethodCard:
    """The portrait of a method with its defaults; of one that wraps another, around saliency."""
    needed = {name: part for name, part in _NEEDED.items() if _is_required(kind, name)}
    try:
        method = parse_method({"name": kind.title(), **needed})
        picture, volume = reference_context(PICTURE), reference_context(VOLUME)
        requests = method.requests(picture)
        streams = [streams_of([method], context, Label(label=0)) for context in (picture, volume)]
    except VoxplainError as error:
        return MethodCard(reason=str(error))
    sums = method.complete and any(request.complete for request in requests)
    layered = getattr(method, "layers", None) is not None
    return MethodCard(
        streams=tuple(stream.describe() for stream in streams[0]),
        costs=tuple(_cost(part) for part in streams),
        complete=sums and not layered,
        flows=sums and layered,
        forwards_only=all(request.forwards_only for request in requests),
        exact_in_windows=_is_exact_in_windows(method, requests),
        needs_references=any(_needs_references(stream, picture) for stream in streams[0]),
        sign=method.sign,
        resampling=method.resampling,
        random=method.noise() is not None or any(_draws(each, picture) for each in requests),
    )


def _either(counts: Sequence[int], one: str, several: str) -> str:
    """``121 / 1,331 forwards``; nothing where there are none."""
    if not any(counts):
        return ""
    numbers = " / ".join(dict.fromkeys(f"{count:,}" for count in counts))
    return f"{numbers} {one if numbers == '1' else several}"


@lru_cache(maxsize=2)
def reference_context(shape: tuple[int, ...]) -> Context:
    """A small network of large strides, so that a declaration that looks into it is quick."""
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


def _cost(streams: Sequence[Stream[Request]]) -> PassCost:
    forwards = sum(stream.passes() for stream in streams if stream.request.forwards_only)
    return PassCost(sum(stream.passes() for stream in streams) - forwards, forwards)


def _is_required(kind: type[Method], name: str) -> bool:
    return name in kind.model_fields and kind.model_fields[name].is_required()


def _is_exact_in_windows(method: Method, requests: Sequence[Request]) -> bool:
    """Not so where rules or reducers see the gradient of one window at a time nonlinearly."""
    linear = all(request.exact_in_windows for request in requests)
    weights = getattr(method, "weights", None)
    return method.exact_in_windows and linear and getattr(weights, "exact_in_windows", True)


def _needs_references(stream: Stream[Request], context: Context) -> bool:
    """Whether an image without references has no passes at all, or none that could be drawn."""
    if stream.passes(0) == 0:
        return True
    if stream.request.forwards_only:
        return False
    try:
        stream.request.sample(StreamInput(torch.zeros(1, 4, 4), 0, "none"), context)
    except VoxplainError:
        return True
    return False


def _draws(request: Request, context: Context) -> bool:
    """Whether another key gives other points or masks."""
    image = context.example[0]
    references = torch.stack([image * 0, image / 2, image * 2])
    items = [StreamInput(image, 0, key, references) for key in ("a", "b")]
    first, second = (identity(request.sample(item, context)) for item in items)
    return first != second
