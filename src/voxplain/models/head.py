"""The explained part of what a network returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import Tensor

from voxplain.errors import ModelError, nearest

Head = int | str | Callable[[Any], Tensor]
"""An index, a key, or a function of what the network returns."""

StatedActivation = Literal["auto", "softmax", "sigmoid"]
"""What turns an output into probabilities, where a target leaves it open; ``auto`` to find out."""


def select(output: Any, head: Head) -> Any:
    """The part of a tuple, list or dict that a head chooses.

    Raises:
        ModelError: With the parts that there are, if it has no such part.
    """
    if callable(head):
        return head(output)
    try:
        return output[head]
    except (KeyError, IndexError, TypeError) as error:
        keys = [str(key) for key in output] if isinstance(output, Mapping) else []
        hint = f"; {nearest(str(head), keys)}" if keys else ""
        raise ModelError(f"head={head!r} does not fit {described(output)}{hint}") from error


def described(output: Any) -> str:
    """What a network returned, in words: its type and its parts."""
    if isinstance(output, Mapping):
        return f"a dict with keys {', '.join(map(repr, output))}"
    if isinstance(output, (tuple, list)):
        return f"a {type(output).__name__} of {len(output)} parts"
    return f"a {type(output).__name__}"
