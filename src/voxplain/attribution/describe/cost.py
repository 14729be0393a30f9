"""The cost of methods before any pass runs: streams, passes, groups, and cheaper settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel
from torch import Tensor, nn

from voxplain.engine.context import Context
from voxplain.engine.method import Method, streams_of
from voxplain.engine.requests import Request, Stream
from voxplain.errors import VoxplainError
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.targets import Label


@dataclass(frozen=True)
class StreamEstimate:
    """One stream, and its cost.

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
            stream.describe(), stream.passes(), stream.methods, stream.request.forwards_only
        )
        for stream in _streams(methods, image, model)
    ]


def group(
    methods: Sequence[Method], image: Image | Tensor, model: Model | nn.Module
) -> list[tuple[Method, ...]]:
    """Groups of methods that share streams, directly or through others, in the given order."""
    groups: list[set[str]] = [{method.key} for method in methods]
    for stream in _streams(methods, image, model):
        readers = {*stream.methods}
        touching = [keys for keys in groups if keys & readers]
        groups = [keys for keys in groups if not keys & readers] + [readers.union(*touching)]
    order = {method.key: index for index, method in enumerate(methods)}
    groups.sort(key=lambda keys: min(order[key] for key in keys))
    return [tuple(method for method in methods if method.key in keys) for keys in groups]


def _streams(
    methods: Sequence[Method], image: Image | Tensor, model: Model | nn.Module
) -> list[Stream[Request]]:
    # Only the equality of targets counts here, so that any target stands for that of the call.
    return streams_of(methods, Context.open(model, image), Label(label=0))


Settings = TypeVar("Settings", bound=BaseModel)
_EXTENTS = ("window", "stride", "size")
"""Parameters whose larger values are cheaper."""
_SEARCH_START = 4096
"""First value for a count whose default depends on the image."""


def cheaper_settings(
    method: Method, image: Image | Tensor, model: Model | nn.Module, limit: int
) -> list[str]:
    """Changes of a single parameter, each of which alone keeps a method within a limit.

    Every count of the method and of its parameters is lowered, and every extent enlarged, until
    the declaration requests no more passes than the limit.

    Args:
        method: A method that takes more passes.
        image: The image it is declared on.
        model: The network.
        limit: Passes.

    Returns:
        As studies write them: ``["samples=500", "regions.count=20"]``.
    """
    context = Context.open(model, image)
    passes = _passes(method, context) or 1
    settings = []
    for path, values in _candidates(method, limit / passes):
        fitting = (value for value in values if _fits(method, path, value, context, limit))
        if (cheaper := next(fitting, None)) is not None:
            settings.append(f"{'.'.join(path)}={_written(cheaper)}")
    return settings


def _candidates(
    settings: BaseModel, share: float
) -> Iterator[tuple[tuple[str, ...], Iterator[Any]]]:
    """Paths of the parameters that determine cost, each with cheaper and cheaper values."""
    for name, info in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            inner = _candidates(value, share)
            yield from (((name, *path), values) for path, values in inner)
        elif name in _EXTENTS and isinstance(value, (int, float)):
            yield (name,), _larger(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield (name,), _fewer(value, share)
        elif value is None and "int" in str(info.annotation) and name not in _EXTENTS:
            yield (name,), _fewer(_SEARCH_START, 1.0)


def _fewer(count: int, share: float) -> Iterator[int]:
    """The count for proportional cost, in two digits; then half, a quarter, and so on."""
    wanted = int(count * share)
    digits = max(0, len(str(wanted)) - 2)
    if 1 <= wanted < count:
        yield max(1, wanted // 10**digits * 10**digits)
    while count > 1:
        count //= 2
        yield count


def _larger(extent: float) -> Iterator[float]:
    """Twice, four times, and so on; a fraction of an axis no more than half of it."""
    while extent < (0.5 if isinstance(extent, float) else 512):
        extent = min(0.5, 2 * extent) if isinstance(extent, float) else 2 * extent
        yield extent


def _fits(method: Method, path: Sequence[str], value: Any, context: Context, limit: int) -> bool:
    try:
        return 0 < _passes(_changed(method, path, value), context) <= limit
    except (VoxplainError, ValueError):
        return False


def _changed(settings: Settings, path: Sequence[str], value: Any) -> Settings:
    name, *rest = path
    new = _changed(getattr(settings, name), rest, value) if rest else value
    return settings.model_copy(update={name: new})


def _passes(method: Method, context: Context) -> int:
    return sum(stream.passes() for stream in streams_of([method], context, Label(label=0)))


def _written(value: float) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
