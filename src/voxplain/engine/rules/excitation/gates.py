"""Which tensors are gates: what came out of a bounded function and only scales something else."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from voxplain.engine.rules.calls import Call, OperationKind
from voxplain.engine.rules.mode import RuleMode
from voxplain.engine.tensors import TensorMarks, tensors_in

_STRONG = ("sigmoid", "hardsigmoid", "softmax")
_WEAK = ("tanh", "hardtanh", "softsign", "relu6", "erf")
_SHAPED_LIKE = ("expand_as", "view_as", "reshape_as", "type_as", "to")
_CARRYING = (
    OperationKind.LINEAR,
    OperationKind.LINEAR_IN_FIRST,
    OperationKind.DROPOUT,
    OperationKind.SELECT,
    OperationKind.PRODUCT,
    OperationKind.QUOTIENT,
    OperationKind.MAXIMUM,
)


class Gates:
    """Follows gates from the function that made them through views, products and resampling.

    A product u * sigmoid(v), a squeeze-excitation, a softmax of an attention: which operand is
    the gate and which the signal cannot be told from the values, only from where they come.
    """

    def __init__(self) -> None:
        self._strong, self._weak = TensorMarks(), TensorMarks()

    def strength(self, tensor: Tensor) -> int:
        """2 for sigmoids and softmaxes (between 0 and 1), 1 for other bounded functions, else 0."""
        return 2 if tensor in self._strong else int(tensor in self._weak)

    def signal(self, mode: RuleMode, *operands: Any) -> int | None:
        """The number of the operand that carries the signal, None where that is not clear.

        Args:
            mode: Knows what depends on the image.
            operands: Two or more operands of a product.
        """
        moving = [at for at, operand in enumerate(operands) if mode.depends(operand)]
        ranked = sorted((self.strength(operands[at]), at) for at in moving)
        if not ranked or (len(ranked) > 1 and ranked[0][0] == ranked[1][0]):
            return None
        return ranked[0][1]

    def note(self, call: Call, result: Any, mode: RuleMode) -> None:
        """Marks the result of a call if it is a gate."""
        strength = self._of(call, mode)
        if strength == 0:
            return
        for tensor in tensors_in(result):
            (self._strong if strength == 2 else self._weak).add(tensor)

    def _of(self, call: Call, mode: RuleMode) -> int:
        if call.name in _STRONG:
            return 2
        if call.name in _WEAK:
            return 1
        if call.family not in _CARRYING:
            return 0
        operands = list(call.operands())[: 1 if call.name in _SHAPED_LIKE else None]
        moving = [operand for operand in operands if mode.depends(operand)]
        return min((self.strength(operand) for operand in moving), default=0)
