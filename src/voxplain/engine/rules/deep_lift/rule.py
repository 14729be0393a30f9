"""The DeepLIFT rule: image run and reference run, aligned call by call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call, OperationKind
from voxplain.engine.rules.decompositions import decomposition
from voxplain.engine.rules.deep_lift.alignment import Alignment, Recording, is_recorded
from voxplain.engine.rules.deep_lift.cancellation import PartsOfTensors
from voxplain.engine.rules.deep_lift.dispatch import ReplayMode, apply_multipliers
from voxplain.engine.rules.mode import OnUnknown, Rule, RuleMode, caller
from voxplain.engine.rules.substitutes import with_surrogate_gradients, write_result
from voxplain.engine.rules.visibility import NONLINEAR_NODES, unseen_calls
from voxplain.engine.tensors import is_floating
from voxplain.errors import RuleError

Nonlinearity = Literal["rescale", "reveal_cancel"]


@dataclass(frozen=True)
class DeepLiftRule(Rule):
    """DeepLIFT multipliers m with sum((x - b) * m) = S(x) - S(b), exact for any composition.

    Shrikumar et al., Learning important features through propagating activation differences,
    2017, with exact rules for products, softmax, maxima and normalization.

    Attributes:
        nonlinearity: ``rescale``, or ``reveal_cancel`` at rectifiers and squashing functions after
            affine maps, where positive and negative contributions have multipliers of their own.
        eps: Difference below which the derivative replaces the difference quotient, relative to
            max(1, abs x); None for 1e-6 in float32 and 1e-10 in float64.
        softmax: ``exact``, or ``compatible`` with Captum's centered rule (not complete).
        on_unknown: Whether a function without a rule is an error, or gets the plain gradient with
            a warning.
    """

    name: ClassVar[str] = "deep_lift"
    paired: ClassVar[bool] = True
    exact_in_windows: ClassVar[bool] = True
    nonlinearity: Nonlinearity = "rescale"
    eps: float | None = None
    softmax: Literal["exact", "compatible"] = "exact"
    on_unknown: OnUnknown = "error"

    def unseen(self, output: Tensor, image: Tensor) -> list[str]:
        """Descriptions of nonlinear functions that the mode did not see."""
        return unseen_calls(output, image, NONLINEAR_NODES)

    def record(self) -> Recording:
        """A context for the reference forward, gradients disabled."""
        return Recording(with_affine=self.nonlinearity == "reveal_cancel")

    def replay(self, recording: RuleMode) -> RuleMode:
        """A context for the image forward, gradients enabled; a recording can be replayed often."""
        if not isinstance(recording, Recording):
            raise RuleError("the rule 'deep_lift' replays what its own record() returned")
        return _Replay(self, recording)


class _Replay(ReplayMode):
    """Gives every call that is nonlinear in the image its multipliers as backward."""

    def __init__(self, rule: DeepLiftRule, recording: Recording) -> None:
        super().__init__()
        self.eps, self.softmax = rule.eps, rule.softmax
        self._on_unknown = rule.on_unknown
        self._alignment = Alignment(recording)
        self.parts = PartsOfTensors() if rule.nonlinearity == "reveal_cancel" else None

    def treat(self, call: Call, native: Callable[[], Any]) -> Any:
        """The value of the call with its multipliers as the backward."""
        if not is_recorded(call, self, self.parts is not None):
            self._check_linear(call)
            return self._affine(call, None, native)
        decomposed = decomposition(call)
        if decomposed is not None:
            return self._composite(call, decomposed, native)
        reference = self._alignment.reference_call(call)
        if not self.depends(*call.operands()):
            return native()
        result = apply_multipliers(self, call, reference)
        if result is NotImplemented:
            return self._affine(call, reference, native)
        self.treated[call.name] += 1
        return write_result(call, result)

    def report_unknown(self, function: str) -> None:
        """Refuses, or warns about, a function without a rule."""
        if self._on_unknown == "error":
            raise RuleError(
                f"DeepLIFT has no rule for {function}, called in {caller()}; "
                "on_unknown: warn gives it the plain gradient, at the price of completeness"
            )
        remark = f"DeepLIFT has no rule for {function}; it got the plain gradient"
        if remark not in self.warnings:
            self.warnings.append(remark)

    def finish(self) -> None:
        """Checks that both runs made the same calls."""
        self._alignment.finish()

    def _affine(self, call: Call, reference: Call | None, native: Callable[[], Any]) -> Any:
        if self.parts is None:
            return native()
        return self.parts.run(call, reference, native)

    def _composite(
        self, call: Call, decomposed: Callable[[], Any], native: Callable[[], Any]
    ) -> Any:
        with self:
            surrogate = decomposed()
        if not self.depends(*call.operands()):
            return native()
        if surrogate is NotImplemented:
            self.report_unknown(call.name)
            return native()
        if call.inplace or call.out is not None:
            return write_result(call, surrogate)
        with torch.no_grad():
            value = native()
        return with_surrogate_gradients(surrogate, value)

    def _check_linear(self, call: Call) -> None:
        """Reports a call that is not recorded although it is nonlinear in the image."""
        if not self.depends(*call.operands()):
            return
        if call.kind is OperationKind.RECURRENT:
            raise RuleError(
                f"{call.name} in {caller()} hides its gates, so DeepLIFT cannot treat it; "
                "use the rule 'plain'"
            )
        if (
            call.kind is OperationKind.DROPOUT
            and call.get("training", True)
            and call.get("p", 0.5) > 0
        ):
            self.report_unknown(f"{call.name} in training mode")
        if call.kind is OperationKind.LINEAR_IN_FIRST and self.depends(call.get("others", ())):
            self.report_unknown(f"{call.name} with a second operand that depends on the image")
        indices = (operand for operand in call.operands() if not is_floating(operand))
        if call.kind is OperationKind.LINEAR and any(
            self.is_data_dependent(index) for index in indices
        ):
            self.report_unknown(f"{call.name} with an index taken from the image")
