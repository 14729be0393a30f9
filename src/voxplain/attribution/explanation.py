"""``explain``: attributions of an image, several images, or a batch, by any methods."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor, nn

import voxplain.attribution.methods  # noqa: F401  # fills the registry
from voxplain.attribution.assemble import assemble
from voxplain.attribution.methods.base import FromLayer, Wrapper
from voxplain.attribution.result import Attribution
from voxplain.engine.context import Context, References
from voxplain.engine.execution.session import Progress, Session
from voxplain.engine.method import Method, parse_method
from voxplain.errors import ConfigError, VoxplainWarning
from voxplain.image import Image
from voxplain.models.layout import Layout
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
    """Attributions of the score of a target; methods with equal streams share their passes.

    Args:
        model: A network, or a :class:`Model` with head, windows and precision.
        images: One image on its grid; several of them; or a batch ``(B, C, *spatial)``.
        methods: Names, mappings with parameters, or method objects.
        target: A class number, a mapping with ``kind``, or a target object.
        references: Other images on the same grid, for methods that compare with them.
        seed: Of all random draws.
        memory: Bytes for saved activations; None for a default of the device.
        progress: Called with passes done and passes planned.

    Returns:
        Attributions by the key of their method (``key@layer`` where a method has several
        layers); for several images one such dictionary each, in order.

    Raises:
        VoxplainError: In one sentence, if anything does not fit.

    Example:
        >>> network = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU())
        >>> attributions = explain(network, torch.rand(1, 1, 8, 8, 8), "saliency", target=1)
        >>> attributions["saliency"].map.shape
        torch.Size([1, 1, 8, 8, 8])
    """
    if not isinstance(images, (Image, Tensor)):
        model = Model.of(model)  # once, as it keeps the hash of the weights
    explain_images = partial(
        _explain,
        model,
        methods=_methods(methods),
        target=parse_target(target),
        references=references,
        seed=seed,
        memory=memory,
        progress=progress,
    )
    if isinstance(images, (Image, Tensor)):
        return explain_images(images)
    return [explain_images(image) for image in images]


def _methods(methods: AnyMethod | Sequence[AnyMethod]) -> list[Method]:
    if isinstance(methods, (str, Mapping, Method)):
        return [*_each_layer(parse_method(methods))]
    if not methods:
        raise ConfigError("no method is asked for; `voxplain methods` lists them")
    parsed = [parse_method(spec, f"methods[{index}]") for index, spec in enumerate(methods)]
    return _with_distinct_keys([each for method in parsed for each in _each_layer(method)])


def _each_layer(method: Method, context: Context | None = None) -> tuple[Method, ...]:
    """A method for each of its layers, where their maps lie on the image."""
    return method.each_layer(context) if isinstance(method, (FromLayer, Wrapper)) else (method,)


def _with_distinct_keys(methods: list[Method]) -> list[Method]:
    """The methods, with numbered keys where the same one occurs twice.

    Raises:
        ConfigError: If two methods have the same label.
    """
    counts: dict[str, int] = {}
    distinct = []
    for method in methods:
        key = method.key
        count = counts[key] = counts.get(key, 0) + 1
        if count > 1:
            if method.label:
                raise ConfigError(f"two methods are labeled {method.label!r}; rename one")
            method = method.model_copy(update={"label": f"{key}-{count}"})
        distinct.append(method)
    return distinct


def _explain(
    model: Model | nn.Module,
    images: Image | Tensor,
    *,
    methods: Sequence[Method],
    target: Target,
    references: References,
    seed: int,
    memory: int | None,
    progress: Progress | None,
) -> dict[str, Attribution]:
    """The attributions of one image, or of a batch."""
    with torch.inference_mode(False):  # the caller may have switched it on, which stops gradients
        context = Context.open(model, images, seed)
    return explain_in(context, methods, target, references, seed, memory, progress)


def explain_in(
    context: Context,
    methods: Sequence[Method],
    target: Target,
    references: References = None,
    seed: int = 0,
    memory: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Attribution]:
    """Attributions of images on which a network is opened already.

    What the context has found out (the output, layers, windows) is not found out again.

    Args:
        context: The network and the images, opened with the same seed.
        methods: With distinct keys.
        target: What is explained.
        references: See :func:`explain`.
        seed: Likewise.
        memory: Likewise.
        progress: Likewise.

    Returns:
        As :func:`explain`.
    """
    with torch.inference_mode(False):
        at_layers = [each for method in methods for each in _each_layer(method, context)]
        if len(at_layers) > len(methods):
            methods = _with_distinct_keys(at_layers)
        if context.layout is not None and context.layout.is_padded:
            _warn_of_padding(context.layout, context.shape)
        return assemble(Session.open(context, methods, target, references, seed, memory, progress))


def _warn_of_padding(layout: Layout, shape: tuple[int, ...]) -> None:
    kind, value = layout.padding, layout.padding_value
    constant = f"the value {value:g}" if value else "zeros"
    filled = constant if kind == "constant" else f"its own values ({kind})"
    warnings.warn(
        f"the window {layout.size} is larger than the image {shape}; the image is padded with "
        f"{filled}, half on either side",
        VoxplainWarning,
        stacklevel=5,
    )


__all__ = ["AnyMethod", "AnyTarget", "explain", "explain_in"]
