"""The front door: explain an image, several images, or a batch, with any methods in one call."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn

import voxplain.attribution.methods  # noqa: F401  # fills the registry
from voxplain.attribution.assemble import attributions_of
from voxplain.attribution.result import Attribution
from voxplain.engine.context import Context, References
from voxplain.engine.execution.session import Progress, Session
from voxplain.engine.method import Method, parse_method
from voxplain.errors import ConfigError, VoxplainWarning
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.targets import Target, parse_target

AnyMethod = str | Mapping[str, Any] | Method
AnyTarget = int | str | Mapping[str, Any] | Target


@overload
def explain(
    model: Model | nn.Module,
    images: Image | Tensor,
    methods: AnyMethod | Sequence[AnyMethod],
    target: AnyTarget,
    *,
    references: References = None,
    seed: int = 0,
    memory: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Attribution]: ...


@overload
def explain(
    model: Model | nn.Module,
    images: Sequence[Image],
    methods: AnyMethod | Sequence[AnyMethod],
    target: AnyTarget,
    *,
    references: References = None,
    seed: int = 0,
    memory: int | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Attribution]]: ...


def explain(
    model: Model | nn.Module,
    images: Image | Sequence[Image] | Tensor,
    methods: AnyMethod | Sequence[AnyMethod],
    target: AnyTarget,
    *,
    references: References = None,
    seed: int = 0,
    memory: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Attribution] | list[dict[str, Attribution]]:
    """Explains what drives a score; methods that declare the same stream share its passes.

    Args:
        model: A network, or a :class:`Model` with head, windows and precision.
        images: One image on its grid; several of them; or a batch ``(B, C, *spatial)``.
        methods: Names, mappings with parameters, or method objects.
        target: A class number, a mapping with ``kind``, or a target object.
        references: Other images on the same grid, for methods that compare with them.
        seed: Of every random draw.
        memory: Bytes for saved activations; None for a default of the device.
        progress: Called with passes done and passes planned.

    Returns:
        Attributions by the key of their method (``key@layer`` where a method has several
        layers); for several images one such dictionary each, in order.

    Raises:
        VoxplainError: In one sentence, whatever does not fit.

    Example:
        >>> network = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU())
        >>> found = explain(network, torch.rand(1, 1, 8, 8, 8), "saliency", target=1)
        >>> found["saliency"].map.shape
        torch.Size([1, 1, 8, 8, 8])
    """
    chosen = _methods(methods)
    asked = parse_target(target)
    studied = Model.of(model)
    if isinstance(images, (Image, Tensor)):
        with torch.inference_mode(False):  # a caller may be in it, and gradients need it off
            context = Context.open(studied, images)
            _warn_of_padding(context)
            session = Session.open(context, chosen, asked, references, seed, memory, progress)
            return attributions_of(session)
    return [
        explain(
            studied,
            image,
            chosen,
            asked,
            references=references,
            seed=seed,
            memory=memory,
            progress=progress,
        )
        for image in images
    ]


def _warn_of_padding(context: Context) -> None:
    layout = context.layout
    if layout is not None and layout.is_padded:
        warnings.warn(
            f"the window {layout.size} is larger than the image {context.shape}; the image is "
            "padded with zeros at its end",
            VoxplainWarning,
            stacklevel=3,
        )


def _methods(methods: AnyMethod | Sequence[AnyMethod]) -> list[Method]:
    several = isinstance(methods, Sequence) and not isinstance(methods, str)
    listed: Sequence[Any] = methods if several else [methods]  # type: ignore[assignment]
    chosen = [
        parse_method(method, f"methods[{index}]" if several else "")
        for index, method in enumerate(listed)
    ]
    if not chosen:
        raise ConfigError("no method is asked for; `voxplain methods` lists them")
    return _with_distinct_keys(chosen)


def _with_distinct_keys(methods: list[Method]) -> list[Method]:
    """The same method twice gets numbered keys; the same label twice is an error."""
    found: dict[str, int] = {}
    distinct = []
    for method in methods:
        count = found[method.key] = found.get(method.key, 0) + 1
        if count > 1:
            if method.label:
                raise ConfigError(f"two methods are labeled {method.label!r}; rename one")
            method = method.model_copy(update={"label": f"{method.key}-{count}"})
        distinct.append(method)
    return distinct


__all__ = ["AnyMethod", "AnyTarget", "explain"]
