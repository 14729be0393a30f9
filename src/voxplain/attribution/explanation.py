"""The front door: explain an image, several images, or a batch, with any methods in one call."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn

from voxplain.attribution import catalogue
from voxplain.attribution.binding import Bound, bind, look
from voxplain.attribution.contrast import facing
from voxplain.attribution.method import Method, Request, parse_method
from voxplain.attribution.outcome import Batch
from voxplain.attribution.randomness import image_key
from voxplain.attribution.result import Attribution
from voxplain.attribution.run import Progress, Session
from voxplain.attribution.scene import Scene
from voxplain.attribution.wrap import attributions_of
from voxplain.errors import ConfigError, ModelError, VoxplainWarning
from voxplain.image import Image
from voxplain.model import Model
from voxplain.targets import Target, parse_target

AnyMethod = str | Mapping[str, Any] | Method
AnyTarget = int | str | Mapping[str, Any] | Target
References = Tensor | Sequence[Image] | None

__all__ = ["AnyMethod", "AnyTarget", "References", "catalogue", "explain", "prepare"]


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
            session, bound, image = prepare(
                studied, images, chosen, asked, references, seed, memory, progress
            )
            return attributions_of(session, bound, image)
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


def prepare(
    model: Model,
    images: Image | Tensor,
    methods: Sequence[Method],
    target: Target,
    references: References = None,
    seed: int = 0,
    memory: int | None = None,
    progress: Progress | None = None,
) -> tuple[Session, Bound, Image | None]:
    """Looks at the images once, binds the targets and declares the streams; runs no pass yet."""
    image = images if isinstance(images, Image) else None
    batch = images if isinstance(images, Tensor) else images.data[None]
    inputs = model.admit(_bare(batch))
    spacing = image.grid.spacing if image and image.grid.unit == "mm" else None
    scene = Scene(model, inputs[:1], spacing, image)
    if scene.layout is not None and scene.layout.is_padded:
        warnings.warn(
            f"the window {scene.layout.size} is larger than the image {scene.shape}; the image is "
            "padded with zeros at its end",
            VoxplainWarning,
            stacklevel=3,
        )
    _require_differentiable(model, methods, scene)
    overrides = [
        request.target
        for method in methods
        for request in method.requests(scene)
        if request.target is not None
    ]
    layers = [layer for one in (target, *overrides) for layer in one.layers]
    seen = look(model, inputs, layers, image, scene.arranged)
    main = bind(target, seen)
    keys = tuple(f"{seed}/{image_key(row)}" for row in inputs)
    others = tuple(references_of(references, row) for row in inputs)

    def bound(asked: Target) -> Bound:
        return main if asked is target else bind(facing(asked, target), seen)

    session = Session(
        scene,
        methods,
        target,
        bound,
        Batch(inputs, keys, others),
        memory,
        progress,
        home=batch.device,
    )
    return session, main, image


def _require_differentiable(model: Model, methods: Sequence[Method], scene: Scene) -> None:
    """Methods of gradients need a network that has them; masks are content with scores."""
    needy = [
        method.key
        for method in methods
        if any(isinstance(request, Request) for request in method.requests(scene))
    ]
    if not needy:
        return
    if not model.differentiable:
        raise ModelError(
            f"{model.name} is a forward-only black box (ONNX or TorchScript), and {needy[0]} needs "
            "the network as a PyTorch module; methods that mask the image, such as occlusion, rise "
            "and kernel_shap, do without"
        )
    if any(part.is_inference() for part in model.network.parameters()):
        raise ModelError(
            f"{model.name} was made or loaded under torch.inference_mode, whose tensors have no "
            "gradients; make it outside"
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


def _bare(tensor: Tensor) -> Tensor:
    """Without subclass and graph, and not one of those that inference mode makes."""
    bare = tensor.detach().as_subclass(Tensor)
    return bare.clone() if bare.is_inference() else bare


def references_of(references: References, image: Tensor) -> Tensor | None:
    """The references of one image, without the image itself."""
    if references is None:
        return None
    if isinstance(references, Tensor):
        stacked = _bare(references).to(image)
    else:
        stacked = torch.stack([other.data.to(image) for other in references])
    if stacked.shape[1:] != image.shape:
        raise ConfigError(
            f"references of shape {tuple(stacked.shape[1:])} for an image of shape "
            f"{tuple(image.shape)}; they must lie on the same grid"
        )
    same = (stacked == image).flatten(1).all(dim=1)
    return stacked[~same]
