"""Preprocessing steps of a study, through which maps can be brought back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from voxplain.errors import ConfigError, nearest
from voxplain.image import Image, Inverse
from voxplain.preprocess.cropping import CenterCropPad, Crop, CropForeground, PadToMultiple
from voxplain.preprocess.intensity import Normalize
from voxplain.preprocess.inverses import AxesInverse, ResampleInverse, WindowInverse
from voxplain.preprocess.nnunet import NnunetNormalize, NnunetResample, Transpose
from voxplain.preprocess.spatial import Reorient, Resize, Spacing
from voxplain.preprocess.step import Step

AnyStep = Annotated[
    Reorient
    | Transpose
    | Spacing
    | Resize
    | NnunetResample
    | CropForeground
    | Crop
    | CenterCropPad
    | PadToMultiple
    | Normalize
    | NnunetNormalize,
    Field(discriminator="kind"),
]
Steps = list[AnyStep]

_KINDS: dict[str, type[Step]] = {
    step.model_fields["kind"].default: step
    for step in (
        Reorient, Transpose, Spacing, Resize, NnunetResample, CropForeground, Crop, CenterCropPad,
        PadToMultiple, Normalize, NnunetNormalize,
    )
}  # fmt: skip
_ADAPTER: TypeAdapter[Step] = TypeAdapter(AnyStep)


def apply(image: Image, steps: Iterable[Step | Mapping[str, Any]]) -> Image:
    """The image after all steps in order; its history brings maps back.

    Args:
        image: As it was read from its file.
        steps: Step objects, or mappings such as ``{"kind": "spacing", "size": 1}``.

    Raises:
        ConfigError: If a step does not exist or does not fit the image.
        InputError: If the image has no foreground to crop to.
    """
    for step in [parse_step(step) for step in steps]:
        image = step.apply(image)
    return image


def parse_step(step: Step | Mapping[str, Any]) -> Step:
    """A step object from a mapping.

    Raises:
        ConfigError: If the kind is unknown (with the nearest ones) or a field does not fit.
    """
    if isinstance(step, Step):
        return step
    kind = str(step.get("kind", ""))
    if kind not in _KINDS:
        raise ConfigError(f"unknown preprocessing step {kind!r}; {nearest(kind, _KINDS)}")
    try:
        return _ADAPTER.validate_python(dict(step))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {first['msg']}") from None


__all__ = [
    "AnyStep",
    "AxesInverse",
    "CenterCropPad",
    "Crop",
    "CropForeground",
    "Inverse",
    "NnunetNormalize",
    "NnunetResample",
    "Normalize",
    "PadToMultiple",
    "Reorient",
    "ResampleInverse",
    "Resize",
    "Spacing",
    "Step",
    "Steps",
    "Transpose",
    "WindowInverse",
    "apply",
    "parse_step",
]
