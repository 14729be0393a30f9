"""Constants that calls put beside or in place of values of the image: fills, padding, tokens.

Relevance and winning probability that arrive at them go no further, and belong into the books.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call
from voxplain.engine.tensors import is_floating, map_tensors

CONCATENATING = ("cat", "concat", "concatenate", "stack", "hstack", "vstack")
FILLING = (
    *("pad", "constant_pad_nd", "where", "masked_fill", "__setitem__", "index_fill", "index_put"),
    *("index_copy", "scatter", "slice_scatter", "select_scatter", "diagonal_scatter"),
)
"""Functions of which some elements may be constants, while all others are copied."""


def run_booking_constants(
    call: Call,
    native: Callable[[], Any],
    depends: Callable[[Tensor], bool],
    book: Callable[[Tensor], None],
) -> Any:
    """The result of a call that copies values of the image and may put constants beside them.

    Args:
        call: One of :data:`FILLING` or :data:`CONCATENATING`.
        native: Runs it as it was called.
        depends: Whether a tensor depends on the image.
        book: Called in the backward with what arrives at each element, 0 where it is no constant.
    """
    is_constant = _same_for_all_images(call, depends)
    result = native()
    written = call.input if call.name == "__setitem__" else result
    if bool(is_constant.any()) and written.requires_grad:
        written.register_hook(lambda arriving: book(arriving * is_constant))
    return result


def _same_for_all_images(call: Call, depends: Callable[[Tensor], bool]) -> Tensor:
    """Where a call gives the same for an image of zeros and for one of ones."""

    def result(fill: float) -> Tensor:
        def filled(tensor: Tensor) -> Tensor:
            if is_floating(tensor) and depends(tensor):
                return tensor.detach().new_tensor(fill).expand(tensor.shape)
            return tensor.detach()

        arguments = map_tensors(call.arguments, filled)
        operands = arguments.pop("operands", ())
        unpacked = call.name in CONCATENATING and operands and isinstance(operands[0], Tensor)
        with torch.no_grad():
            operands = (operands,) if unpacked else operands
            value: Tensor = call.operation.pure(*operands, **arguments)
        return value

    return result(0.0) == result(1.0)
