"""What a call will cost, and which methods belong together, before any pass runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from voxplain.attribution.method import Method
from voxplain.attribution.scene import Scene
from voxplain.attribution.streams import AnyStream, MaskedStream, declared
from voxplain.image import Image
from voxplain.model import Model
from voxplain.targets import Label


@dataclass(frozen=True)
class StreamEstimate:
    """One stream of a plan.

    Attributes:
        description: Sampler, rule and noise in words.
        passes: Passes per image.
        methods: Keys of the methods that read it.
        forwards_only: Whether the passes are forwards without a backward pass.
    """

    description: str
    passes: int
    methods: tuple[str, ...]
    forwards_only: bool = False


def estimate(
    methods: Sequence[Method], image: Image | Tensor, model: Model | nn.Module
) -> list[StreamEstimate]:
    """The distinct streams of some methods, with their passes per image."""
    return [
        StreamEstimate(
            described(stream), stream.passes, stream.methods, isinstance(stream, MaskedStream)
        )
        for stream in _streams(methods, image, model)
    ]


def group(
    methods: Sequence[Method], image: Image | Tensor, model: Model | nn.Module
) -> list[tuple[Method, ...]]:
    """Methods that share streams, directly or through others, in the order they were asked for."""
    groups: list[set[str]] = [{method.key} for method in methods]
    for stream in _streams(methods, image, model):
        joined = set(stream.methods).union(*(part for part in groups if part & {*stream.methods}))
        groups = [part for part in groups if not part & joined] + [joined]
    order = {method.key: index for index, method in enumerate(methods)}
    groups.sort(key=lambda keys: min(order[key] for key in keys))
    return [tuple(method for method in methods if method.key in keys) for keys in groups]


def _streams(
    methods: Sequence[Method], image: Image | Tensor, model: Model | nn.Module
) -> list[AnyStream]:
    # Only equality matters here, so that any target stands for the one of the call.
    return declared(methods, scene_of(image, model), Label(label=0))


def scene_of(image: Image | Tensor, model: Model | nn.Module) -> Scene:
    """What methods are declared on: the network and an image."""
    studied = Model.of(model)
    batch = image.data[None] if isinstance(image, Image) else image
    placed = image if isinstance(image, Image) else None
    spacing = placed.grid.spacing if placed and placed.grid.unit == "mm" else None
    return Scene(studied, studied.admit(batch[:1]), spacing, placed)


def described(stream: AnyStream) -> str:
    """A stream in words."""
    noise = f"{stream.copies} noisy copies, " if stream.noise else ""
    if isinstance(stream, MaskedStream):
        masks = type(stream.request.masks).__name__
        fill = stream.request.fill
        runs = f" and {fill.runs(None)} cases" if fill.runs(None) > 1 else ""
        return (
            f"{noise}{masks} filled with {fill.kind}, {stream.masks:,} masks{runs}, forwards only"
        )
    request = stream.request
    sampler = type(request.sampler).__name__
    passes = "1 pass" if request.sampler.passes == 1 else f"{request.sampler.passes:,} passes"
    return f"{noise}{sampler} under {request.rule.name}, {passes}{' each' if noise else ''}"
