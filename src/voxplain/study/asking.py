"""Asking a network about an image, with every way it can refuse in words."""

from __future__ import annotations

from torch import nn

from voxplain.attribution import Prediction, predict
from voxplain.errors import InputError, ModelError, TargetError, VoxplainError
from voxplain.image import Image
from voxplain.study.inputs import LoadedModel
from voxplain.targets import Target

# What networks raise for an image they cannot take.
_FROM_A_CALL = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def ask(loaded: LoadedModel, image: Image, target: Target) -> Prediction:
    """What a network says of an image, with its failures in words.

    Args:
        loaded: The network.
        image: As the network wants to see it.
        target: What is asked.

    Raises:
        ModelError: If the network cannot take the image.
        TargetError: If the target does not fit the prediction.
    """
    try:
        return predict(loaded.model, image, target)
    except (TargetError, InputError):
        raise
    except (
        VoxplainError,
        RuntimeError,
        ValueError,
        TypeError,
        IndexError,
        AssertionError,
    ) as error:
        known = _misfit(loaded.model.network, image)
        if known is None and isinstance(error, VoxplainError):
            raise
        raise ModelError(known or _refusal(image, error)) from error


def _misfit(network: nn.Module, image: Image) -> str | None:
    """How the first convolution disagrees with the image, which is why a call fails."""
    first = next((part for part in network.modules() if isinstance(part, _CONVOLUTIONS)), None)
    if first is None:
        return None
    rank, channels = first.weight.ndim - 2, len(image.data)
    if rank != image.rank:
        shape = "x".join(map(str, image.grid.shape))
        return f"the network is {rank}-D and the image is {image.rank}-D ({shape})"
    if first.in_channels != channels:
        names = ", ".join(image.channels)
        return (
            f"the network takes {first.in_channels} channels and the image has {channels} ({names})"
        )
    return None


def _refusal(image: Image, error: Exception) -> str:
    shape = "x".join(map(str, image.grid.shape))
    first_line = next(iter(str(error).strip().splitlines()), "")[:160]
    return (
        f"the network cannot take this image ({len(image.data)} channels, {shape}); a "
        f"preprocessing step such as pad_to_multiple may be missing ({type(error).__name__}: "
        f"{first_line})"
    )
