"""How a network behaves in a call: whether it draws, writes into its input, or mixes images.

All of it is found out by a few calls on one image.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from voxplain.errors import ModelError, is_out_of_memory
from voxplain.models.rest import observing, random_state_kept

Call = Callable[[Tensor], Tensor]
"""One call of a network: from ``(B, C, *spatial)`` to its explained output ``(B, K, ...)``."""

_DRAWS = 8
"""Calls that tell how much the output of a random network varies."""
_EQUAL, _NEARLY = 1e-5, 1e-3
"""Largest differences, relative to the largest output, that are rounding: of the same kernels, and
of those for another number of images."""
_EQUAL_HALF, _NEARLY_HALF = 1e-2, 3e-2
"""The same in half precision, and where a GPU may round products to ten bits."""


@dataclass(frozen=True)
class Behavior:
    """What has to be done for every call of a network.

    Attributes:
        one_by_one: Whether each image needs a call of its own.
        is_random: Whether random numbers are drawn, so that each call needs a seed.
        writes: Whether the network writes into its input, so that each call needs a copy.
        remarks: Sentences for the reader of a map.
    """

    one_by_one: bool = False
    is_random: bool = False
    writes: bool = False
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Trial:
    """What a few calls of a network on one image tell.

    Attributes:
        behavior: Of the network.
        outputs: By the number of images in a call, the output ``(1, K, ...)`` for the image, where
            every such call gives it.
    """

    behavior: Behavior
    outputs: Mapping[int, Tensor]


def tried_behavior(network: nn.Module, call: Call, example: Tensor) -> Trial:
    """How a network behaves, after a few calls.

    Args:
        network: Left as it was, like all random generators.
        call: Calls it once, on the very tensor it is given.
        example: ``(1, C, *spatial)``, what one call sees.

    Raises:
        ModelError: If the network fails on the example.
    """
    written = False

    def call_on_copy(images: Tensor) -> Tensor:
        nonlocal written
        copy = images.clone()
        output = call(copy)
        written |= copy._version > 0
        return output

    with torch.inference_mode(False), observing(network):  # inference tensors count no writes
        finite = example.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        trial = _tried(call_on_copy, finite)
        outputs = trial.outputs if torch.equal(finite, example) else {}
    return Trial(replace(trial.behavior, writes=written), outputs)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """A block in which all random generators start from a seed; afterwards they are as before.

    Args:
        seed: For torch, NumPy and the random module of Python.
        device: Where the network runs.
    """
    indices = _cuda_index(device)
    with random_state_kept(indices):
        torch.default_generator.manual_seed(seed)
        for index in indices:
            torch.cuda.default_generators[index].manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield


def _tried(call: Call, example: Tensor) -> Trial:
    """Random networks draw other numbers for two images, so they are asked one by one as well."""
    device = example.device
    with seeded(0, device):
        before = _generator_states(device)
        alone = call(example).clone()  # a network may give the same tensor in every call
        draws = _generator_states(device) != before
    outputs = {1: alone}
    remarks = None if draws else _interaction(call, example, outputs)
    if draws or (remarks and not _equal(alone, call(example), _EQUAL, _EQUAL_HALF)):
        remark = _random_remark(call, example)
        return Trial(Behavior(one_by_one=True, is_random=True, remarks=(remark,)), {})
    if remarks is None:
        return Trial(Behavior(), outputs)
    return Trial(Behavior(one_by_one=True, remarks=remarks), {1: alone})


def _interaction(call: Call, example: Tensor, outputs: dict[int, Tensor]) -> tuple[str, ...] | None:
    """Remarks on a network that needs images one by one; None if it takes several at once.

    The output beside another image is added to the one of a call alone.
    """
    alone = outputs[1]
    try:
        both = call(torch.cat([_unlike(example), example])).clone()
        outputs[2] = both[1:]
        # The other image goes along, as differences are relative to the largest output.
        alone = torch.cat([both[:1], alone])
        if _equal(alone, both, _EQUAL, _EQUAL_HALF):
            return None
        twins = torch.cat([both[:1], call(torch.cat([example, example]))[1:]])
    except ModelError:
        return ("the network takes one image per call, so every image went through it alone",)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return ()
    if _equal(twins, both, _EQUAL, _EQUAL_HALF) and _equal(alone, twins, _NEARLY, _NEARLY_HALF):
        return None
    return (
        "images of one batch influence each other in this network, so every image went through it "
        "alone",
    )


def _unlike(example: Tensor) -> Tensor:
    """An image of another mean, spread, minimum and maximum."""
    low, high = example.min(), example.max()
    span = torch.where(high > low, high - low, torch.ones_like(low))
    middle = (low + high) / 2
    flipped = example.flip(tuple(range(2, example.ndim)))
    return middle + 3 * (flipped - middle) + 0.37 * span


def _random_remark(call: Call, example: Tensor) -> str:
    """How much the output varies between calls, and whether a seed fixes it."""
    outputs = []
    for seed in (*range(_DRAWS), 0):
        with seeded(seed, example.device):
            outputs.append(call(example).double())
    again, drawn = outputs.pop(), torch.stack(outputs)
    spread = drawn.std(dim=0, correction=0).max() / drawn.abs().max().clamp(min=1e-300)
    text = (
        f"the network is random: over {_DRAWS} calls on one image the standard deviation of its "
        f"output is up to {100 * float(spread):.2g} % of the largest output"
    )
    if _equal(drawn[0], again, _EQUAL, _EQUAL_HALF):
        return f"{text}; every call drew the same numbers, from the seed of the map"
    return f"{text}, and no seed fixes it, so the next map will be another one"


def _equal(first: Tensor, second: Tensor, full: float, half: float) -> bool:
    """Whether outputs are equal up to rounding, NaN and infinity included."""
    if first.shape != second.shape:
        return False
    is_half = first.is_floating_point() and torch.finfo(first.dtype).bits < 32
    is_exact = first.device.type == "cpu" and not is_half
    tolerance = full if is_exact else half
    largest = float(first.abs().nan_to_num(posinf=0).max()) if first.numel() else 0.0
    limit = {"rtol": 0.0, "atol": tolerance * largest}
    return torch.allclose(first, second, equal_nan=True, **limit)


def _generator_states(device: torch.device) -> tuple[object, ...]:
    states = [torch.get_rng_state().numpy().tobytes()]
    states += [torch.cuda.get_rng_state(i).numpy().tobytes() for i in _cuda_index(device)]
    _, numbers, position, *_ = np.random.get_state(legacy=True)
    return (*states, np.asarray(numbers).tobytes(), position, random.getstate())


def _cuda_index(device: torch.device) -> Iterable[int]:
    return [device.index or 0] if device.type == "cuda" else []
