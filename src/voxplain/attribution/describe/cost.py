"""What a call will cost, and which methods belong together, before any pass runs."""

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
            stream.describe(), stream.passes(), stream.methods, stream.request.forwards_only
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
) -> list[Stream[Request]]:
    # Only equality matters here, so that any target stands for the one of the call.
    return streams_of(methods, Context.open(model, image), Label(label=0))


Part = TypeVar("Part", bound=BaseModel)
_EXTENTS = ("window", "stride", "size")
"""Parameters of which more is cheaper."""
_WHERE_ABSENT = 4096
"""Where a count that is absent depends on the image, search starts here."""


def cheaper_settings(
    method: Method, image: Image | Tensor, model: Model | nn.Module, limit: int
) -> list[str]:
    """Single settings, each of which alone brings a method down to the limit.

    Every count of the method, and of what is inside it, is lowered, and every extent enlarged,
    until the declaration asks for no more than the limit.

    Args:
        method: What is too expensive.
        image: What it is declared on.
        model: The network.
        limit: Passes.

    Returns:
        As studies write them: ``["samples=500", "regions.count=20"]``.
    """
    context = Context.open(model, image)
    passes = _passes(method, context) or 1
    found = []
    for path, values in _knobs(method, limit / passes):
        value = next((each for each in values if _fits(method, path, each, context, limit)), None)
        if value is not None:
            found.append(f"{'.'.join(path)}={_shown(value)}")
    return found


def _knobs(part: BaseModel, share: float) -> Iterator[tuple[tuple[str, ...], Iterator[Any]]]:
    """Every parameter that may be turned, with values from mild to drastic."""
    for name, info in type(part).model_fields.items():
        value = getattr(part, name)
        if isinstance(value, BaseModel):
            yield from (((name, *path), values) for path, values in _knobs(value, share))
        elif name in _EXTENTS and isinstance(value, (int, float)):
            yield (name,), _larger(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield (name,), _fewer(value, share)
        elif value is None and "int" in str(info.annotation) and name not in _EXTENTS:
            yield (name,), _fewer(_WHERE_ABSENT, 1.0)


def _fewer(count: int, share: float) -> Iterator[int]:
    """What would do if cost were proportional, in two digits; then half, a quarter, and so on."""
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


def _changed(part: Part, path: Sequence[str], value: Any) -> Part:
    name, *rest = path
    new = _changed(getattr(part, name), rest, value) if rest else value
    return part.model_copy(update={name: new})


def _passes(method: Method, context: Context) -> int:
    return sum(stream.passes() for stream in streams_of([method], context, Label(label=0)))


def _shown(value: float) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
