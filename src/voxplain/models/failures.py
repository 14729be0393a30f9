"""Errors of a network and of its gradients, in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor

from voxplain.errors import ModelError, VoxplainError, is_out_of_memory
from voxplain.models.head import described

WITHOUT_GRADIENTS = (
    "methods that mask the image, such as occlusion, rise and kernel_shap, do without"
)
"""What works where there are no gradients; the end of a sentence."""


class GradientError(ModelError):
    """A network whose gradients cannot be taken, though it may run without them."""


@contextmanager
def failures_in_words(inputs: Tensor) -> Iterator[None]:
    """Inside, what a network raises for these inputs becomes a ModelError."""
    try:
        yield
    except Exception as error:
        raise_in_words(error, inputs)


def raise_in_words(error: Exception, inputs: Tensor) -> NoReturn:
    """Raises what a network raised as a ModelError; errors that callers handle pass unchanged.

    These are out of memory, a time limit and errors of voxplain itself.

    Args:
        error: As the network raised it.
        inputs: What the network was called with.

    Raises:
        GradientError: Where gradients are taken.
        ModelError: Elsewhere.
    """
    if _is_handled(error):
        raise error
    if torch.is_grad_enabled() and inputs.requires_grad:
        raise GradientError(_without_gradient(error)) from error
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


@contextmanager
def gradient_failures_in_words() -> Iterator[None]:
    """Inside, what a backward pass through a network raises becomes a GradientError.

    Errors that callers handle pass unchanged, as in :func:`raise_in_words`.
    """
    try:
        yield
    except Exception as error:
        raise_without_gradient(error)


def raise_without_gradient(error: Exception) -> NoReturn:
    """Raises what a backward pass raised as a GradientError, as :func:`raise_in_words` does."""
    if _is_handled(error):
        raise error
    raise GradientError(_without_gradient(error)) from error


def with_methods(error: GradientError, methods: Sequence[str]) -> ModelError:
    """The error that names the methods which need the gradients.

    Args:
        error: Why they cannot be taken.
        methods: Their names.
    """
    need = "needs" if len(methods) == 1 else "need"
    return ModelError(f"{' and '.join(methods)} {need} gradients, and {error}; {WITHOUT_GRADIENTS}")


def _is_handled(error: Exception) -> bool:
    return isinstance(error, (VoxplainError, TimeoutError)) or is_out_of_memory(error)


def _without_gradient(error: Exception) -> str:
    """Why there is no gradient, as a part of a sentence."""
    if "inplace operation" in str(error):
        return (
            "the network overwrites in place a value that its gradient needs, as `x += 1` after a "
            "rectifier does, so that it cannot be differentiated unless that step is written out "
            "of place"
        )
    if isinstance(error, NotImplementedError):
        return f"the network cannot be differentiated: {_first_line(error).rstrip('.')}"
    return f"the gradient of the network cannot be taken ({quoted(error)})"


def quoted(error: BaseException) -> str:
    """The type of an error and the first line of its text, without paths."""
    text = _first_line(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _first_line(error: BaseException) -> str:
    first_line = next(iter(str(error).strip().splitlines()), "")
    return _PATH.sub("…", first_line)[:_LONGEST_QUOTE]


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
