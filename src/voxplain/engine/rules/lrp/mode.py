"""The function mode of layer-wise relevance propagation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call, OperationKind
from voxplain.engine.rules.constants import FILLING, run_booking_constants
from voxplain.engine.rules.lrp.composites import Composite
from voxplain.engine.rules.lrp.intensity_range import IntensityRange, OriginalCall
from voxplain.engine.rules.lrp.layer_rules import total
from voxplain.engine.rules.mode import RuleMode, caller
from voxplain.engine.rules.redistribution import linear_map
from voxplain.engine.tensors import TensorMarks, tensors_in
from voxplain.errors import RuleError

_GATES = ("sigmoid", "hardsigmoid", "softmax")
_SHAPED_LIKE = ("expand_as", "view_as", "reshape_as", "type_as")
_KEEPING_GATES = (
    OperationKind.LINEAR,
    OperationKind.LINEAR_IN_FIRST,
    OperationKind.DROPOUT,
    OperationKind.SELECT,
)


class ConservationLedger:
    """Relevance absorbed by biases and stabilizers in one backward, summed over the batch.

    Conservation: relevance at the output = sum of the map + bias + epsilon.
    """

    def __init__(self) -> None:
        self._bias: Tensor | None = None
        self._epsilon: Tensor | None = None

    def add(self, bias: Tensor, epsilon: Tensor) -> None:
        """Adds relevance absorbed by biases and other constants, and by stabilizers."""
        self._bias = bias if self._bias is None else self._bias + bias
        self._epsilon = epsilon if self._epsilon is None else self._epsilon + epsilon

    @property
    def bias(self) -> float:
        """Relevance absorbed by biases, shifts of norms and other constants."""
        return 0.0 if self._bias is None else float(self._bias)

    @property
    def epsilon(self) -> float:
        """Relevance absorbed by stabilizers."""
        return 0.0 if self._epsilon is None else float(self._epsilon)


class LrpMode(RuleMode):
    """Gives every call the redistribution of relevance as its backward.

    Args:
        composite: Layer rules of weighted calls and norms.
        epsilon: Stabilizer of the calls that composites do not cover.
        gate: Part of the relevance of a gated product that its signal gets: all of it, or half.
        intensities: Range of intensities of the image, for the box rule.
        strict: Whether a function without a rule is an error.
        propagate: Runs a call with the redistribution of its relevance as backward; returns
            ``NotImplemented`` if torch's own derivative is the redistribution.

    Attributes:
        conservation: Relevance absorbed by biases and stabilizers.
        gates: Tensors between 0 and 1 that sigmoids and softmaxes computed.
        weighted_calls: Number of weighted calls so far.
        calls_on_image: Number of those whose operand is the image itself.
    """

    def __init__(
        self,
        composite: Composite,
        epsilon: float,
        gate: Literal["signal", "half"],
        intensities: IntensityRange,
        strict: bool,
        propagate: Callable[[LrpMode, Call, Callable[[], Any]], Any],
    ) -> None:
        super().__init__()
        self.composite, self.epsilon, self.gate = composite, epsilon, gate
        self.intensities, self.strict = intensities, strict
        self.conservation = ConservationLedger()
        self.gates = TensorMarks()
        self.weighted_calls = self.calls_on_image = 0
        self._propagate = propagate

    def prepare(self, images: Tensor) -> None:
        """Takes the range of intensities from whole images."""
        self.intensities.observe(images)

    def residuals(self) -> dict[str, float]:
        """Relevance absorbed by biases, and by stabilizers."""
        return {"bias": self.conservation.bias, "epsilon": self.conservation.epsilon}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Stores the call in its original form, to repeat it on ranges of intensities."""
        self._original = OriginalCall(func, args, kwargs or {})
        return super().__torch_function__(func, types, args, kwargs)

    def treat(self, call: Call, native: Callable[[], Any]) -> Any:
        """The value of the call with the redistribution of relevance as its backward."""
        if not self.depends(*call.operands()):
            return native()
        original = self._original
        for operand in call.operands():
            if operand.is_leaf and self.depends(operand):
                self.intensities.add_image(operand)
        result = self._propagate(self, call, native)
        if result is NotImplemented:
            result = self._run_native(call, native)
        else:
            self.treated[call.name] += 1
        self._mark_gates_and_images(call, original, result)
        return result

    def _run_native(self, call: Call, native: Callable[[], Any]) -> Any:
        """The call under torch's own derivative; relevance of its constants counts as a bias's."""
        if call.name not in FILLING:
            return native()
        return run_booking_constants(call, native, self.depends, self._book_constants)

    def _book_constants(self, relevance: Tensor) -> None:
        amount = total(relevance)
        self.conservation.add(amount, torch.zeros_like(amount))

    def report_unknown(self, function: str) -> None:
        """Refuses, or warns about, a function without a rule."""
        if self.strict:
            raise RuleError(self.no_rule_message(function))
        remark = f"LRP has no rule for {function}; relevance passed it approximately"
        if remark not in self.warnings:
            self.warnings.append(remark)

    def no_rule_message(self, function: str) -> str:
        """Error text for a function without a rule, with the line that calls it."""
        return (
            f"LRP has no rule for {function}, called in {caller()}; "
            "on_unknown: warn goes on with an approximation"
        )

    def finish(self) -> None:
        """Adds a warning if a rule for layers that read the image was not used."""
        first_rules = [choice.rule for choice in self.composite if choice.first]
        if first_rules and self.weighted_calls and not self.calls_on_image:
            self.warnings.append(
                f"no weighted layer reads the image itself, so the {first_rules[0]} rule was not "
                "used"
            )

    def _mark_gates_and_images(self, call: Call, original: OriginalCall, result: Any) -> None:
        """Marks results that are gates, and those that hold the image itself."""
        operands = list(call.operands())[: 1 if call.name in _SHAPED_LIKE else None]
        dependent = [operand for operand in operands if self.depends(operand)]
        if call.name in _GATES or (
            call.kind in _KEEPING_GATES and all(operand in self.gates for operand in dependent)
        ):
            for tensor in tensors_in(result):
                self.gates.add(tensor)
        images = [operand for operand in dependent if self.intensities.of(operand) is not None]
        if images and len(images) == len(dependent) and _only_rearranges(call):
            self.intensities.transform(original, result)


def _only_rearranges(call: Call) -> bool:
    """Whether every element of the result is one of the operand's."""
    if call.kind is not OperationKind.LINEAR or call.inplace or call.out is not None:
        return False
    try:
        return linear_map(call) is None
    except RuleError:
        return False
