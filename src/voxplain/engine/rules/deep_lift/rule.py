"""DeepLIFT (Rescale) through the whole graph: image and reference run, aligned call by call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call, OperationKind
from voxplain.engine.rules.decompositions import decomposition
from voxplain.engine.rules.deep_lift.alignment import Alignment, Recording, is_recorded
from voxplain.engine.rules.deep_lift.dispatch import Replaying, treated
from voxplain.engine.rules.graph import NONLINEAR_NODES, unseen_calls
from voxplain.engine.rules.mode import OnUnknown, Rule, RuleMode, caller
from voxplain.engine.rules.substitutes import grafted_all, written
from voxplain.engine.tensors import is_floating
from voxplain.errors import RuleError


@dataclass(frozen=True)
class DeepLift(Rule):
    """Multipliers m with sum((x - b) * m) = S(x) - S(b), exact for any composition.

    Shrikumar et al., Learning important features through propagating activation differences,
    2017 (the Rescale rule), with exact rules for products, softmax, maxima and normalization.

    Attributes:
        eps: Difference below which the derivative replaces the difference quotient, relative to
            max(1, abs x); None for 1e-6 in float32 and 1e-10 in float64.
        softmax: ``exact``, or ``compatible`` with Captum's centered rule (not complete).
        on_unknown: What to do about a function without a rule.
    """

    name: ClassVar[str] = "deep_lift"
    paired: ClassVar[bool] = True
    exact_in_windows: ClassVar[bool] = True
    eps: float | None = None
    softmax: Literal["exact", "compatible"] = "exact"
    on_unknown: OnUnknown = "error"

    def unseen(self, output: Tensor, image: Tensor) -> list[str]:
        """Nonlinear functions that were called out of sight of the mode, in words."""
        return unseen_calls(output, image, NONLINEAR_NODES)

    def record(self) -> Recording:
        """A context for the reference forward, gradients disabled."""
        return Recording()

    def replay(self, recording: RuleMode) -> RuleMode:
        """A context for the image forward, gradients enabled; repeats as often as needed."""
        if not isinstance(recording, Recording):
            raise RuleError("the rule 'deep_lift' replays what its own record() returned")
        return _Replay(self, recording)


class _Replay(Replaying):
    """Puts multipliers in the graph for every call that is not linear in the image."""

    def __init__(self, rule: DeepLift, recording: Recording) -> None:
        super().__init__()
        self.eps, self.softmax = rule.eps, rule.softmax
        self._on_unknown = rule.on_unknown
        self._alignment = Alignment(recording)

    def treat(self, call: Call, native: Callable[[], Any]) -> Any:
        """The value of the call with its multipliers as the backward."""
        if not is_recorded(call, self):
            self._check_untreated(call)
            return native()
        steps = decomposition(call)
        if steps is not None:
            return self._composite(call, steps, native)
        reference = self._alignment.partner(call)
        if not self.depends(*call.operands()):
            return native()
        result = treated(self, call, reference)
        if result is NotImplemented:
            return native()
        self.treated[call.name] += 1
        return written(call, result)

    def unknown(self, what: str) -> None:
        """Refuses, or remarks on, a function that would get the plain gradient."""
        if self._on_unknown == "error":
            raise RuleError(
                f"DeepLIFT has no rule for {what}, called in {caller()}; "
                "on_unknown: warn gives it the plain gradient, at the price of completeness"
            )
        remark = f"DeepLIFT has no rule for {what}; it got the plain gradient"
        if remark not in self.warnings:
            self.warnings.append(remark)

    def finish(self) -> None:
        """Makes sure that both runs made the same calls."""
        self._alignment.finish()

    def _composite(self, call: Call, steps: Callable[[], Any], native: Callable[[], Any]) -> Any:
        with self:
            stand_in = steps()
        if not self.depends(*call.operands()):
            return native()
        if stand_in is NotImplemented:
            self.unknown(call.name)
            return native()
        if call.inplace or call.out is not None:
            return written(call, stand_in)
        with torch.no_grad():
            value = native()
        return grafted_all(stand_in, value)

    def _check_untreated(self, call: Call) -> None:
        if not self.depends(*call.operands()):
            return
        if call.family is OperationKind.RECURRENT:
            raise RuleError(
                f"{call.name} in {caller()} hides its gates, so DeepLIFT cannot treat it; "
                "use the rule 'plain'"
            )
        if (
            call.family is OperationKind.DROPOUT
            and call.get("training", True)
            and call.get("p", 0.5) > 0
        ):
            self.unknown(f"{call.name} in training mode")
        if call.family is OperationKind.LINEAR_IN_FIRST and self.depends(call.get("others", ())):
            self.unknown(f"{call.name} with a second operand that depends on the image")
        picks = (t for t in call.operands() if not is_floating(t))
        if call.family is OperationKind.LINEAR and any(
            self.decided_by_data(index) for index in picks
        ):
            self.unknown(f"{call.name} with an index taken from the image")
