"""Calls of the networks of a study: their answer to a pattern, and what they predict for a case."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from voxplain.attribution import Prediction, predict
from voxplain.engine.context import Context
from voxplain.errors import InputError, ModelError, TargetError, VoxplainError
from voxplain.image import Image
from voxplain.study.planning.identity import fingerprint, probe_shape
from voxplain.study.planning.networks import LoadedModel
from voxplain.study.planning.time_limit import can_limit_time, in_words, time_limit
from voxplain.targets import Target, UnperturbedOutput

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def identified(
    loaded: LoadedModel,
    image: Image,
    limit: float | None,
    earlier: tuple[int, ...] | None = None,
) -> LoadedModel:
    """A network with the fingerprint of its answer to a pattern.

    Args:
        loaded: The network.
        image: Of a case; its shape is that of the pattern, unless an earlier run used another one.
        limit: Seconds that a task may take.
        earlier: ``(C, *spatial)`` of the pattern of an earlier run.

    Returns:
        The network without a fingerprint where it does not take such a pattern.

    Raises:
        ModelError: If it takes too long.
    """
    with check_limit(loaded, limit):
        for shape in filter(None, (earlier, _probe_shape(loaded, image))):
            with contextlib.suppress(VoxplainError):
                found = fingerprint(loaded.model, shape)
                return replace(loaded, fingerprint=found, probe=shape)
    return loaded


def _probe_shape(loaded: LoadedModel, image: Image) -> tuple[int, ...] | None:
    with contextlib.suppress(VoxplainError):
        return probe_shape(loaded.model, loaded.prepare(image))
    return None


def predict_case(
    loaded: LoadedModel, image: Image, target: Target, limit: float | None = None
) -> Prediction:
    """The prediction of a network for an image, with failures of the network in words.

    Args:
        loaded: The network.
        image: After the preprocessing of the network.
        target: What is explained.
        limit: Seconds that a task may take, in the check of a study.

    Raises:
        ModelError: If the network cannot take the image.
        TargetError: If the target does not fit the prediction.
    """
    with _misfits_in_words(loaded.model.network, image), check_limit(loaded, limit):
        return predict(loaded.model, image, target)


def output_for_case(loaded: LoadedModel, image: Image, limit: float | None) -> UnperturbedOutput:
    """The output of a network for an image, with failures of the network in words.

    Args:
        loaded: The network.
        image: After the preprocessing of the network.
        limit: Seconds that a task may take.

    Raises:
        ModelError: If the network cannot take the image.
    """
    with _misfits_in_words(loaded.model.network, image), check_limit(loaded, limit):
        return Context.open(loaded.model, image).look()


_SHORTEST_LIMIT = 10.0
"""Seconds; the first call of a network takes longer than those after it."""


@contextlib.contextmanager
def check_limit(loaded: LoadedModel, limit: float | None) -> Iterator[None]:
    """A block in which a network is called for the check of a study, under the limit of a task.

    Raises:
        ModelError: If the network takes longer.
    """
    seconds = None if limit is None else max(limit, _SHORTEST_LIMIT)
    try:
        with time_limit(seconds) if can_limit_time() else contextlib.nullcontext():
            yield
    except TimeoutError as error:
        raise ModelError(
            f"model {loaded.config.name}: no answer to one image after {in_words(seconds or 0)}; a "
            "longer run.timeout gives it more time"
        ) from error


@contextlib.contextmanager
def _misfits_in_words(network: nn.Module, image: Image) -> Iterator[None]:
    """A block whose errors say that the image has other axes or channels, if that is the reason."""
    try:
        yield
    except (TargetError, InputError):
        raise
    except VoxplainError as error:
        misfit = _misfit(network, image)
        if misfit is None:
            raise
        raise ModelError(misfit) from error


def _misfit(network: nn.Module, image: Image) -> str | None:
    """How the first convolution disagrees with the image, which is why a call fails."""
    convolutions = (module for module in network.modules() if isinstance(module, _CONVOLUTIONS))
    first = next(convolutions, None)
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
