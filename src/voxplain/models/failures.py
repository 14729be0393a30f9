"""Errors of a network, in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor

from voxplain.errors import ModelError, VoxplainError, is_out_of_memory
from voxplain.models.head import described


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
    more = _MORE_INPUTS.search(str(error))
    if more:
        raise ModelError(
            f"the forward of the network takes more than the image ({more[1]}); explain a module "
            "around it whose forward(self, x) fills in the rest, as in self.net(x, self.other), or "
            "which takes several images as channels of x, as in self.net(x[:, :1], x[:, 1:])"
        ) from error
    raise ModelError(
        f"the network fails on inputs of shape {tuple(inputs.shape)} ({quoted(error)}); if it "
        "needs another size, a preprocessing step such as pad_to_multiple may be missing"
    ) from error


def quoted(error: BaseException) -> str:
    """The type of an error and the first line of its text, without paths."""
    first_line = next(iter(str(error).strip().splitlines()), "")
    text = _PATH.sub("…", first_line)[:_LONGEST_QUOTE]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


_MORE_INPUTS = re.compile(
    r"forward\(\) (?:missing \d+ required positional arguments?: |is missing value for argument )"
    r"('\w+'(?:(?:,|,? and) '\w+')*)"
)
"""What Python and TorchScript say where a forward is called with too few inputs."""

_LONGEST_QUOTE = 160
_PATH = re.compile(r"[^\s'\"()\[\],;:]*[\\/][^\s'\"()\[\],;]*")


def unusable(output: Any, inputs: Tensor) -> ModelError:
    """The error for what a network returned instead of one tensor with a row for each input."""
    if not isinstance(output, Tensor):
        return ModelError(
            f"the network returns {described(output)}; choose a part with head= (an index, "
            "a key or a function)"
        )
    return ModelError(
        f"the network maps {tuple(inputs.shape)} to {tuple(output.shape)}; voxplain needs "
        "(B, K) scores or a dense (B, K, *spatial) output"
    )
