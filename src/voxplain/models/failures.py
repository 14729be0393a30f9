"""Errors of a network, in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch
from torch import Tensor

from voxplain.errors import ModelError, VoxplainError, is_out_of_memory


@contextmanager
def failures_in_words(inputs: Tensor) -> Iterator[None]:
    """Inside, what a network raises for these inputs becomes a ModelError."""
    try:
        yield
    except Exception as error:
        raise_in_words(error, inputs)


def raise_in_words(error: Exception, inputs: Tensor) -> NoReturn:
    """Raises what a network raised as a ModelError; errors that callers handle pass unchanged.

    These are out of memory, a time limit, errors of voxplain itself, and, where gradients are
    taken, a function without a derivative.

    Args:
        error: As the network raised it.
        inputs: What the network was called with.
    """
    without_derivative = isinstance(error, NotImplementedError) and torch.is_grad_enabled()
    is_known = isinstance(error, (VoxplainError, TimeoutError)) or is_out_of_memory(error)
    if is_known or without_derivative:
        raise error
    raise ModelError(
        f"the network fails on inputs of shape {tuple(inputs.shape)} ({quoted(error)}); if it "
        "needs another size, a preprocessing step such as pad_to_multiple may be missing"
    ) from error


def quoted(error: BaseException) -> str:
    """The type of an error and the first line of its text, without paths."""
    first_line = next(iter(str(error).strip().splitlines()), "")
    text = _PATH.sub("…", first_line)[:_LONGEST_QUOTE]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


_LONGEST_QUOTE = 160
_PATH = re.compile(r"[^\s'\"()\[\],;:]*[\\/][^\s'\"()\[\],;]*")
