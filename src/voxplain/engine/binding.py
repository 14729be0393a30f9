"""Binding: the one look at the unperturbed images that fixes what is explained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from voxplain.engine.taps import Tap, tapping
from voxplain.errors import ConfigError, InputError, TargetError
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.targets import Target, UnperturbedOutput, WeightField

_BYTES_AT_ONCE = 64 * 2**20


@dataclass(frozen=True, eq=False)
class BoundTarget:
    """A target on a batch of images.

    Attributes:
        target: What was asked.
        field: Its weight field.
        scores: S(x) per image.
        seen: The look that fixed it.
    """

    target: Target
    field: WeightField
    scores: tuple[float, ...]
    seen: UnperturbedOutput

    @property
    def rebind(self) -> Callable[[Tensor], WeightField] | None:
        """Binds again at an output, for targets that follow; None for the others."""
        if not self.target.follow:
            return None
        if self.field.layer is not None:
            raise TargetError("follow=True is for targets on the output, not for units of a layer")
        return lambda output: self.target.rebind(replace(self.seen, output=output))


def look(
    model: Model,
    inputs: Tensor,
    layers: Sequence[str] = (),
    image: Image | None = None,
    arrange: Callable[[Tap, Tensor], Tensor] | None = None,
) -> UnperturbedOutput:
    """The output, and the activations of some layers, for unperturbed images.

    Raises:
        InputError: If the images hold NaN.
        ModelError: If the network cannot take them.
    """
    if not torch.isfinite(inputs).all():
        bad = int((~torch.isfinite(inputs)).sum())
        raise InputError(f"the image holds {bad} NaN or infinite values; replace them first")
    spacing = image.grid.spacing_mm if image else None
    taps = tuple(Tap(layer) for layer in dict.fromkeys(layers))
    at_once = max(1, _BYTES_AT_ONCE // max(1, inputs[0].numel() * inputs.element_size()))
    outputs: list[Tensor] = []
    tapped_values: dict[str, list[Tensor]] = {tap.path: [] for tap in taps}
    for part in torch.split(inputs, at_once):
        with tapping(model.network, taps) as tapped:
            outputs.append(model.output(part, spacing))
            for tap in taps:
                value = tapped[tap].detach().clone()
                tapped_values[tap.path].append(
                    (arrange(tap, value) if arrange else value)[: len(part)]
                )
    volume = image.grid.voxel_volume if image and image.grid.unit == "mm" else None
    return UnperturbedOutput(
        output=torch.cat(outputs),
        image=image,
        input_shape=tuple(inputs.shape[2:]),
        voxel_volume=volume,
        activations={path: torch.cat(parts) for path, parts in tapped_values.items()},
        classes=model.classes,
    )


def bind(target: Target, seen: UnperturbedOutput) -> BoundTarget:
    """Fixes a target on images that were looked at.

    Raises:
        TargetError: In words, if there is nothing to explain.
    """
    bound = target.bind(seen)
    explained = seen.output if bound.layer is None else seen.activations[bound.layer]
    return BoundTarget(target, bound, tuple(bound.score(explained).tolist()), seen)


References = Tensor | Sequence[Image] | None


def plain_tensor(tensor: Tensor) -> Tensor:
    """A tensor without subclass, graph or inference mode."""
    bare = tensor.detach().as_subclass(Tensor)
    return bare.clone() if bare.is_inference() else bare


def references_of(references: References, image: Tensor) -> Tensor | None:
    """The references of one image, without the image itself."""
    if references is None:
        return None
    if isinstance(references, Tensor):
        stacked = plain_tensor(references).to(image)
    else:
        stacked = torch.stack([other.data.to(image) for other in references])
    if stacked.shape[1:] != image.shape:
        raise ConfigError(
            f"references of shape {tuple(stacked.shape[1:])} for an image of shape "
            f"{tuple(image.shape)}; they must lie on the same grid"
        )
    same = (stacked == image).flatten(1).all(dim=1)
    return stacked[~same]
