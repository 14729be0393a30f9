"""What is known while relevance is put in the graph, and what is remembered of tensors."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

from torch import Tensor

from voxplain.engine.rules.calls import Call, OperationKind
from voxplain.engine.rules.lrp.composites import Composite
from voxplain.engine.rules.lrp.intensity_range import OriginalCall, Range
from voxplain.engine.rules.mode import RuleMode
from voxplain.engine.rules.redistribution import linear_map
from voxplain.engine.tensors import TensorMarks, tensors_in
from voxplain.errors import RuleError


def _only_moves(call: Call) -> bool:
    """Whether every value of the result is one of the operand's."""
    if call.family is not OperationKind.LINEAR or call.inplace or call.out is not None:
        return False
    try:
        return linear_map(call) is None
    except RuleError:
        return False


_GATES = ("sigmoid", "hardsigmoid", "softmax")
_SHAPED_LIKE = ("expand_as", "view_as", "reshape_as", "type_as")
_CARRYING = (
    OperationKind.LINEAR,
    OperationKind.LINEAR_IN_FIRST,
    OperationKind.DROPOUT,
    OperationKind.SELECT,
)


class ConservationLedger:
    """Sums of relevance over one backward, all images of the batch together.

    Conservation: sum of what entered = sum of the map + bias + epsilon.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def take(self, bias: Tensor, epsilon: Tensor) -> None:
        """Books what biases and other constants took, and what stabilizers took."""
        self._book("bias", bias)
        self._book("epsilon", epsilon)

    @property
    def bias(self) -> float:
        """What biases, shifts of norms and other constants took."""
        return self._value("bias")

    @property
    def epsilon(self) -> float:
        """What stabilizers took."""
        return self._value("epsilon")

    def _book(self, name: str, amount: Tensor) -> None:
        self._sums[name] = self._sums[name] + amount if name in self._sums else amount

    def _value(self, name: str) -> float:
        return float(self._sums[name]) if name in self._sums else 0.0


class LrpPropagation(RuleMode):
    """What every function reads while relevance is put in the graph.

    Attributes:
        composite: The layer rules.
        epsilon: Of the calls that composites have no say in.
        gate: What the signal of a gate gets.
        range: Intensities of tensors that hold the image itself, at most moved about.
        balance: The books.
        strict: Whether a function without a rule is an error.
        gates: Tensors between 0 and 1 that sigmoids and softmaxes made.
        weighted: Weighted calls so far.
        reading: Those of them that read the image itself.
    """

    composite: Composite
    epsilon: float
    gate: Literal["signal", "half"]
    range: Range
    balance: ConservationLedger
    strict: bool

    def __init__(self) -> None:
        super().__init__()
        self.gates = TensorMarks()
        self.weighted = self.reading = 0

    @abstractmethod
    def refusal(self, what: str) -> str:
        """The sentence for a function without a rule, with the line that calls it."""

    def carry(self, call: Call, asked: OriginalCall, result: Any) -> None:
        """Remembers which results still hold the image itself, and which are gates.

        Args:
            call: With its arguments by name.
            asked: The same call as the network made it.
            result: What it gave.
        """
        operands = list(call.operands())[: 1 if call.name in _SHAPED_LIKE else None]
        moving = [part for part in operands if self.depends(part)]
        gating = call.family in _CARRYING and all(part in self.gates for part in moving)
        if gating or call.name in _GATES:
            for tensor in tensors_in(result):
                self.gates.add(tensor)
        raw = [part for part in moving if self.range.of(part) is not None]
        if raw and len(raw) == len(moving) and _only_moves(call):
            self.range.follow(asked, result)
