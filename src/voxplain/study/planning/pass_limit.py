"""The limit of passes per method and image, checked before anything starts."""

from __future__ import annotations

from collections.abc import Sequence

from voxplain.attribution.describe.cost import StreamEstimate, cheaper_settings
from voxplain.engine.method import Method
from voxplain.errors import ConfigError
from voxplain.image import Image
from voxplain.models.model import Model


def require_affordable(
    methods: Sequence[Method],
    streams: Sequence[StreamEstimate],
    limit: int,
    image: Image,
    model: Model,
) -> None:
    """Refuses a method that takes more passes than the limit.

    Args:
        methods: A group that shares streams.
        streams: Of the group.
        limit: Passes that one method may take.
        image: As the network sees it.
        model: The network.

    Raises:
        ConfigError: With the number of passes, and with cheaper settings.
    """
    for method in methods:
        passes = sum(stream.passes for stream in streams if method.key in stream.methods)
        if passes > limit:
            raise ConfigError(_sentence(method, passes, limit, image, model))


def _sentence(method: Method, passes: int, limit: int, image: Image, model: Model) -> str:
    settings = cheaper_settings(method, image, model, limit)
    advice = f"{_either(settings)} would do, or a higher run.max_passes (--max-passes)"
    if not settings:
        advice = "a higher run.max_passes (--max-passes) lets it run"
    return (
        f"{method.key} takes about {passes:,} passes for an image of shape "
        f"{tuple(image.data.shape[1:])}, and no more than {limit:,} are allowed; {advice}"
    )


def _either(options: Sequence[str]) -> str:
    *others, last = options or [""]
    return f"{', '.join(others)} or {last}" if others else last
